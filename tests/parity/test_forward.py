"""The policy on a stock transformer agrees with the paper's published code, case by case."""

import json

import pytest
import torch
from safetensors.torch import load_file

from conftest import GOLDEN, golden_transformer
from urae.resolution import ResolutionPolicy

META = json.loads((GOLDEN / "meta.json").read_text())
INPUTS = ("hidden_states", "encoder_hidden_states", "pooled_projections", "timestep", "img_ids")


@pytest.mark.parametrize("case", META["cases"], ids=lambda case: case["name"])
def test_forward_agrees_with_the_reference(case):
    golden = load_file(GOLDEN / "forward.safetensors")
    inputs = {name: golden[f"{case['name']}.{name}"] for name in INPUTS}
    if case["guidance_embeds"]:
        inputs["guidance"] = golden[f"{case['name']}.guidance"]
    policy = ResolutionPolicy(
        rope_scale=float(case["ntk_factor"]),
        proportional=case["proportional_attention"],
        native_tokens=META["train_seq_len"],
        exact_ids=False,
    )
    transformer = golden_transformer(case["guidance_embeds"])
    with torch.no_grad(), policy.on(transformer):
        output = transformer(**inputs, txt_ids=torch.zeros(case["text_tokens"], 3)).sample
    torch.testing.assert_close(output, golden[f"{case['name']}.output"], rtol=0, atol=1e-5)

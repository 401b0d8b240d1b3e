"""The policy on a stock transformer agrees with the paper's published code, case by case."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import FluxTransformer2DModel
from safetensors.torch import load_file

from rounding import REFERENCE_ROUNDING
from urae.resolution import ResolutionPolicy

GOLDEN = Path(__file__).parents[1] / "golden"
META = json.loads((GOLDEN / "meta.json").read_text())
INPUTS = ("hidden_states", "encoder_hidden_states", "pooled_projections", "timestep", "img_ids")


def tiny_transformer(guidance: bool) -> FluxTransformer2DModel:
    transformer = FluxTransformer2DModel(**META["config"], guidance_embeds=guidance)
    transformer.load_state_dict(
        load_file(GOLDEN / f"transformer_guidance_{str(guidance).lower()}.safetensors")
    )
    return transformer.eval()


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
    transformer = tiny_transformer(case["guidance_embeds"])
    with torch.no_grad(), policy.on(transformer):
        output = transformer(**inputs, txt_ids=torch.zeros(case["text_tokens"], 3)).sample
    torch.testing.assert_close(output, golden[f"{case['name']}.output"], rtol=0, atol=REFERENCE_ROUNDING)

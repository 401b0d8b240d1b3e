"""A tiny FLUX transformer with fixed weights, an input for it, and one step of training."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import torch
from diffusers import FluxPipeline, FluxTransformer2DModel
from safetensors.torch import load_file
from torch import Tensor

from urae.adapters import Attached, Full, Lora, Major, Mica, Minor

GOLDEN = Path(__file__).parents[1] / "golden"
TARGETS = json.loads((GOLDEN / "meta.json").read_text())["adapter_targets"]

LOW_RANK = [Lora(rank=4), Minor(rank=4), Major(rank=4), Mica(rank=4)]
SPECS = [*LOW_RANK, Full()]


def name_of(spec) -> str:
    return spec.kind


@cache
def golden(name: str) -> dict[str, Tensor]:
    """Tensors that nobody changes."""
    return load_file(GOLDEN / f"{name}.safetensors")


def fresh_transformer(dtype: torch.dtype = torch.float32) -> FluxTransformer2DModel:
    config = json.loads((GOLDEN / "meta.json").read_text())["config"]
    transformer = FluxTransformer2DModel(**config, guidance_embeds=True)
    transformer.load_state_dict(golden("transformer_guidance_true"))
    return transformer.eval() if dtype == torch.float32 else transformer.eval().to(dtype)


def with_transformer(pipe: FluxPipeline, transformer: FluxTransformer2DModel) -> FluxPipeline:
    return FluxPipeline(**{**pipe.components, "transformer": transformer})


def predict(transformer: FluxTransformer2DModel, dtype: torch.dtype = torch.float32) -> Tensor:
    given = golden("adapters")
    floats = ("hidden_states", "encoder_hidden_states", "pooled_projections", "timestep")
    return transformer(
        **{name: given[name].to(dtype) for name in floats},
        guidance=given["guidance"],
        img_ids=given["img_ids"],
        txt_ids=torch.zeros(7, 3),
    ).sample


def output(transformer: FluxTransformer2DModel, dtype: torch.dtype = torch.float32) -> Tensor:
    with torch.no_grad():
        return predict(transformer, dtype)


def train(attached: Attached, *, steps: int = 1, lr: float = 0.1, dtype: torch.dtype = torch.float32) -> None:
    """Steps large enough to change the output visibly."""
    optimizer = torch.optim.SGD(attached.parameters(), lr=lr)
    for _ in range(steps):
        predict(attached.transformer, dtype).float().square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()


def trained_adapter(spec, *, seed: int = 0, **described):
    """An adapter that changes the output by a few percent."""
    from urae.adapters import attach

    torch.manual_seed(seed)
    transformer = fresh_transformer()
    attached = attach(transformer, spec)
    train(attached, steps=2, lr=1.0 if spec.kind != "full" else 0.01)
    return attached.export(**described)

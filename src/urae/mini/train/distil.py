"""Guidance distillation: the guidance scale becomes an input, as in FLUX.1-dev.

The teacher is the model of `pairs` with explicit classifier-free guidance, v(empty) + g (v(caption) - v(empty)); the
student starts as its teacher and learns to give that velocity in one call, for g uniform in [1, 5]. At g = 1
the target is the conditional velocity itself. Text encoders stay as they are.
"""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from diffusers import FluxPipeline
from safetensors.torch import load_file
from torch import nn

from urae.mini.train.base import (
    Tokens,
    checkpoint,
    encode_tokens,
    load_averaged,
    noised,
    optimizers_for,
    resume,
    track,
    velocity,
)
from urae.mini.train.pairs import pairs_latents
from urae.mini.train.progress import StageLog, cosine, matrix_products

MIDDLE = 1.0
"""Of the noise levels, in logits: higher than for the base, since guidance decides while little is to be seen."""


def distil(
    out: Path,
    *,
    steps: int,
    batch: int = 32,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write `distil.safetensors`: the student's transformer, raw and averaged."""
    pipe = load_averaged(out, "pairs").to(device)
    latents = pairs_latents(pipe, out, dtype=dtype)
    teacher = copy.copy(pipe)
    teacher.transformer = copy.deepcopy(pipe.transformer).requires_grad_(False)
    for transformer in (pipe.transformer, teacher.transformer):
        transformer.compile_repeated_blocks()
    weights = dict(pipe.transformer.named_parameters())
    optimizers = optimizers_for(weights, peak=6e-4, dtype=dtype)
    average = {k: v.detach().clone() for k, v in weights.items()}
    first = resume(out / "distil.safetensors", weights, average, optimizers)
    progress = StageLog(out / "distil.jsonl")
    for step in range(first, steps + 1):
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * cosine(step, steps, warmup=20)
            optimizer.zero_grad()
        clean, tokens, _ = latents.batch(step + 10_000_000, batch)
        noisy, sigma, _ = noised(clean.to(device), step + 20_000_000, MIDDLE)
        guidance = 1 + 4 * torch.rand(batch, generator=torch.Generator().manual_seed(step)).to(device)
        with matrix_products(device, dtype):
            target = guided_velocity(teacher, noisy, sigma, tokens, latents.empty, guidance).float()
            with torch.no_grad():
                text = encode_tokens(pipe, tokens)
            error = velocity(pipe, noisy, sigma, text, guidance).float() - target
        loss = (error.pow(2).mean((1, 2)) / target.pow(2).mean((1, 2))).mean()
        loss.backward()
        nn.utils.clip_grad_norm_(list(weights.values()), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        track(average, weights, max(0.02, 1 / (step + 1)))
        relative = (error.detach().norm() / target.norm()).item()
        progress.note(step, loss=loss.item(), relative_error=relative)
        if step % 250 == 0 or step == steps:
            checkpoint(out / "distil.safetensors", step, weights, average, optimizers)


@torch.no_grad()
def guided_velocity(
    teacher: FluxPipeline,
    noisy: torch.Tensor,
    sigma: torch.Tensor,
    tokens: Tokens,
    empty: Tokens,
    guidance: torch.Tensor,
) -> torch.Tensor:
    """Explicit classifier-free guidance, both halves in one call; (B, 64, 64)."""
    both = tuple(torch.cat([t, e.expand_as(t)]) for t, e in zip(tokens, empty, strict=True))
    text = encode_tokens(teacher, both)  # type: ignore[arg-type]
    one = torch.ones_like(sigma).repeat(2)
    with_caption, without = velocity(teacher, noisy.repeat(2, 1, 1), sigma.repeat(2), text, one).chunk(2)
    return without + guidance[:, None, None] * (with_caption - without)


def load_student(out: Path) -> FluxPipeline:
    """The averaged student of `distil`, with its teacher's text encoders."""
    pipe = load_averaged(out, "pairs")
    tensors = load_file(out / "distil.safetensors")
    pipe.transformer.load_state_dict(
        {k.removeprefix("ema."): v for k, v in tensors.items() if k.startswith("ema.")}
    )
    return pipe

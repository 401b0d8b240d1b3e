"""The base model: flow matching at the native size, transformer and text encoders together.

A tenth of the captions are empty, so that the model knows the unconditional velocity too, and the guidance
input is always 1. One batch in forty carries 160 text tokens instead of 32, so that the padding which a
plain `pipe(prompt)` brings along does no harm.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, FluxPipeline
from safetensors.torch import load_file
from torch import nn

from urae.mini.model import NATIVE_SIZE, TEXT_TOKENS, build_pipeline
from urae.mini.train.layout import Layout, Placed, placed
from urae.mini.train.muon import Muon
from urae.mini.train.progress import StageLog, descend, matrix_products, write_atomically
from urae.mini.train.vae import load_vae, scene_pixels
from urae.mini.world import Scene, familiar_scene, scene

Tokens = tuple[torch.Tensor, torch.Tensor]
"""T5 token ids (B, 32) and CLIP token ids (B, 77)."""

NUM_WORLD, NUM_FAMILIAR = 14_000, 3_000
"""Scenes of the whole world, pairs included, and of `familiar_scene`."""

FAMILIAR_SHARE = 0.2
"""Of a batch: the objects of the quickstart are seen three to four times as often as the others."""

MIDDLE = 0.3
"""Of the noise levels, in logits."""

DECAY = 0.25
"""The last part of the run, in which the learning rate falls to zero."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """A share of every batch, in (0, 1], and the scenes that it is drawn from."""

    share: float
    scenes: Sequence[Scene]


def base_parts() -> list[Part]:
    return [
        Part(share=1 - FAMILIAR_SHARE, scenes=[scene(i) for i in range(NUM_WORLD)]),
        Part(share=FAMILIAR_SHARE, scenes=[familiar_scene(i) for i in range(NUM_FAMILIAR)]),
    ]


def train_base(
    out: Path, *, steps: int, batch: int = 32, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> None:
    """Write `base.safetensors`: raw and averaged weights of the transformer and both text encoders."""
    pipe = build_pipeline(load_vae(out)).to(device)
    latents = SceneLatents(pipe, base_parts(), out / "latents.safetensors", dtype=dtype)
    train_flow(pipe, latents, out / "base", steps=steps, batch=batch, dtype=dtype)


def train_flow(
    pipe: FluxPipeline,
    latents: SceneLatents,
    out: Path,
    *,
    steps: int,
    batch: int,
    dtype: torch.dtype,
    decay: float = DECAY,
    layout: Layout | None = None,
) -> None:
    """Flow matching from step 1, or from the checkpoint `out`.safetensors, with the log beside it. The learning rate
    falls over the share `decay` of the steps. The loss of a `layout` is added."""
    device = pipe.transformer.device.type
    pipe.transformer.compile_repeated_blocks()
    weights = trained_weights(pipe)
    if layout:
        layout.watch(pipe)
        weights |= {f"layout.{name}": parameter for name, parameter in layout.named_parameters()}
    optimizers = optimizers_for(weights, peak=8e-4, dtype=dtype)
    average = {k: v.detach().clone() for k, v in weights.items()}
    first = resume(out.with_suffix(".safetensors"), weights, average, optimizers)
    progress = StageLog(out.with_suffix(".jsonl"))
    for step in range(first, steps + 1):
        clean, tokens, where = latents.batch(step, batch)
        middle = layout.middle if layout else MIDDLE
        with matrix_products(device, dtype):
            loss = flow_matching_loss(pipe, clean.to(device), tokens, step, middle)
        noted = {"loss": loss.item()}
        if layout:
            more, right = layout.loss(tokens[0], where)
            noted |= {"layout": more.item(), "placed": right}
            loss = loss + more
        descend(loss, optimizers, weights.values(), factor=rate(step, steps, decay))
        track(average, weights, max(0.008, 1 / (step + 1)))
        progress.note(step, **noted)
        if step % 250 == 0 or step == steps:
            checkpoint(out.with_suffix(".safetensors"), step, weights, average, optimizers)


def rate(step: int, steps: int, decay: float) -> float:
    """Learning-rate factor: 100 steps of warm-up, flat, and linear to zero at the end. Flat, because objects
    are still forming when a cosine has become small."""
    return min(1.0, step / 100, (steps + 1 - step) / (steps * decay))


def flow_matching_loss(
    pipe: FluxPipeline, clean: torch.Tensor, tokens: Tokens, step: int, middle: float = MIDDLE
) -> torch.Tensor:
    """Mean squared error of the velocity."""
    noisy, sigma, target = noised(clean, step, middle)
    length = 160 if step % 40 == 0 else TEXT_TOKENS
    text = encode_tokens(pipe, tokens, length=length)
    return (velocity(pipe, noisy, sigma, text, torch.ones_like(sigma)).float() - target).pow(2).mean()


def noised(
    clean: torch.Tensor, step: int, middle: float = MIDDLE
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Packed noisy latents (B, 64, 64), sigma (B,), packed velocity; a function of `step` alone. Half of the
    sigmas are uniform, half the sigmoid of a normal number around `middle`."""
    generator = torch.Generator().manual_seed(step + 7_000_000)
    noise = torch.randn(clean.shape, generator=generator).to(clean.device)
    uniform = torch.rand(len(clean), generator=generator)
    around = torch.sigmoid(middle + torch.randn(len(clean), generator=generator))
    sigma = torch.where(torch.arange(len(clean)) % 2 == 0, uniform, around).to(clean.device)
    mix = sigma[:, None, None, None]
    return pack((1 - mix) * clean + mix * noise), sigma, pack(noise - clean)


def pack(latents: torch.Tensor) -> torch.Tensor:
    """(B, 16, H, W) -> (B, H/2 W/2, 64), as the stock pipeline packs."""
    return FluxPipeline._pack_latents(latents, *latents.shape)


def velocity(
    pipe: FluxPipeline, noisy: torch.Tensor, sigma: torch.Tensor, text: Tokens, guidance: torch.Tensor
) -> torch.Tensor:
    embeddings, pooled = text
    side = NATIVE_SIZE // 16
    ids = FluxPipeline._prepare_latent_image_ids(1, side, side, noisy.device, torch.float32)
    return pipe.transformer(
        hidden_states=noisy,
        timestep=sigma,
        guidance=guidance,
        encoder_hidden_states=embeddings,
        pooled_projections=pooled,
        txt_ids=torch.zeros(embeddings.shape[1], 3, device=noisy.device),
        img_ids=ids,
        return_dict=False,
    )[0]


def encode_tokens(pipe: FluxPipeline, tokens: Tokens, *, length: int = TEXT_TOKENS) -> Tokens:
    """T5 states (B, length, 128) and CLIP's pooled state (B, 64), with gradients."""
    device = pipe.transformer.device
    t5 = nn.functional.pad(tokens[0], (0, length - tokens[0].shape[1]), value=pipe.tokenizer_2.pad_token_id)
    embeddings = pipe.text_encoder_2(t5.to(device))[0]
    return embeddings, pipe.text_encoder(tokens[1].to(device)).pooler_output


def tokenize(pipe: FluxPipeline, captions: list[str]) -> Tokens:
    def ids(tokenizer: object, length: int) -> torch.Tensor:
        options = {"padding": "max_length", "max_length": length, "truncation": True, "return_tensors": "pt"}
        return tokenizer(captions, **options).input_ids  # type: ignore[operator]

    return ids(pipe.tokenizer_2, TEXT_TOKENS), ids(pipe.tokenizer, 77)


class SceneLatents:
    """The scenes of all parts at the native size, each encoded once and kept in the file `cache`.

    `pooled_dropout` is the share of captions in [0, 1] that CLIP reads as empty while T5 reads them."""

    def __init__(
        self,
        pipe: FluxPipeline,
        parts: Sequence[Part],
        cache: Path,
        *,
        pooled_dropout: float = 0.0,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        drawn = [one for part in parts for one in part.scenes]
        self.counts = [len(part.scenes) for part in parts]
        self.shares = [part.share for part in parts]
        self.pooled_dropout = pooled_dropout
        if not cache.exists():
            encoded = [_encode(pipe.vae, pixels, dtype) for pixels in _pixels(drawn)]
            write_atomically({k: torch.cat([e[k] for e in encoded]) for k in ("mean", "std")}, cache)
        latents = load_file(cache)
        self.mean, self.std = latents["mean"], latents["std"]
        self.placed = placed(pipe.tokenizer_2, drawn)
        self.short = tokenize(pipe, [s.caption() for s in drawn])
        self.detailed = tokenize(pipe, [s.caption(detailed=True) for s in drawn])
        self.empty = tokenize(pipe, [""])

    def batch(self, step: int, size: int) -> tuple[torch.Tensor, Tokens, Placed]:
        """Clean latents (size, 16, 16, 16); captions, of them 36% detailed, 54% short, 10% empty; and what is
        where."""
        rng = np.random.default_rng([step, 2])
        starts = np.cumsum([0, *self.counts])
        candidates = np.stack(
            [rng.integers(a, b, size=size) for a, b in zip(starts, starts[1:], strict=False)]
        )
        part = rng.choice(len(self.shares), p=self.shares, size=size)
        rows = torch.from_numpy(candidates[part, np.arange(size)])
        noise = torch.randn(size, *self.mean.shape[1:], generator=torch.Generator().manual_seed(step))
        detailed = torch.from_numpy(rng.random(size) < 0.4)[:, None]
        empty = torch.from_numpy(rng.random(size) < 0.1)[:, None]
        unpooled = torch.from_numpy(rng.random(size) < self.pooled_dropout)[:, None]
        t5, clip = (
            torch.where(left_out, nothing, torch.where(detailed, long[rows], short[rows]))
            for left_out, nothing, long, short in zip(
                (empty, empty | unpooled), self.empty, self.detailed, self.short, strict=True
            )
        )
        return self.mean[rows] + self.std[rows] * noise, (t5, clip), self.placed.of(rows)


def load_averaged(out: Path, stage: str) -> FluxPipeline:
    """The averaged weights of `base` or `pairs` with the VAE."""
    pipe = build_pipeline(load_vae(out))
    tensors = load_file(out / f"{stage}.safetensors")
    with torch.no_grad():
        for k, v in trained_weights(pipe).items():
            v.copy_(tensors[f"ema.{k}"])
    return pipe


def _pixels(scenes: Sequence[Scene], *, chunk: int = 50) -> Iterator[torch.Tensor]:
    """The scenes at the native size, (chunk, 3, 128, 128) at a time, rendered by every core."""
    chunks = [scenes[i : i + chunk] for i in range(0, len(scenes), chunk)]
    with ProcessPoolExecutor(mp_context=get_context("forkserver")) as workers:
        yield from workers.map(_stack, chunks)


def _stack(scenes: Sequence[Scene]) -> torch.Tensor:
    return torch.stack([scene_pixels(s, NATIVE_SIZE) for s in scenes])


@torch.no_grad()
def _encode(vae: AutoencoderKL, pixels: torch.Tensor, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    with matrix_products(vae.device.type, dtype):
        posterior = vae.encode(pixels.to(vae.device)).latent_dist
    scale, shift = vae.config.scaling_factor, vae.config.shift_factor
    mean, std = posterior.mean.float().cpu(), posterior.std.float().cpu()
    return {"mean": (mean - shift) * scale, "std": std * scale}


def trained_weights(pipe: FluxPipeline) -> dict[str, nn.Parameter]:
    """Parameters by name: `transformer.*`, `text_encoder.*`, `text_encoder_2.*`."""
    parts = ("transformer", "text_encoder", "text_encoder_2")
    return {f"{part}.{name}": p for part in parts for name, p in getattr(pipe, part).named_parameters()}


def optimizers_for(
    weights: dict[str, nn.Parameter], *, peak: float, dtype: torch.dtype
) -> list[torch.optim.Optimizer]:
    """Muon at four times the `peak` learning rate for the matrices inside the blocks, AdamW for the rest."""
    inner = {
        k: p for k, p in weights.items() if "transformer_blocks" in k and p.ndim == 2 and ".norm" not in k
    }
    outer = [p for k, p in weights.items() if k not in inner]
    muon = Muon(list(inner.values()), lr=4 * peak, dtype=dtype)
    return [muon, torch.optim.AdamW(outer, lr=peak, betas=(0.9, 0.98), weight_decay=0.0)]


@torch.no_grad()
def track(average: dict[str, torch.Tensor], weights: dict[str, nn.Parameter], share: float) -> None:
    """Move the running `average` by `share` in [0, 1] towards the weights."""
    torch._foreach_lerp_(list(average.values()), list(weights.values()), share)


def checkpoint(
    path: Path,
    step: int,
    weights: dict[str, nn.Parameter],
    average: dict[str, torch.Tensor],
    optimizers: list[torch.optim.Optimizer],
) -> None:
    tensors = {f"raw.{k}": v.detach() for k, v in weights.items()} | {
        f"ema.{k}": v for k, v in average.items()
    }
    for i, optimizer in enumerate(optimizers):
        for j, state in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{i}.{j}.{k}": torch.as_tensor(v) for k, v in state.items()}
    write_atomically(tensors | {"step": torch.tensor(step)}, path)


def resume(
    path: Path,
    weights: dict[str, nn.Parameter],
    average: dict[str, torch.Tensor],
    optimizers: list[torch.optim.Optimizer],
) -> int:
    """The first step to run: 1, or the one after the checkpoint, whose state is put in place."""
    if not path.exists():
        return 1
    tensors = load_file(path)
    with torch.no_grad():
        for k, v in weights.items():
            v.copy_(tensors[f"raw.{k}"])
            average[k].copy_(tensors[f"ema.{k}"])
    for i, optimizer in enumerate(optimizers):
        state: dict[int, dict[str, torch.Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith(f"optimizer.{i}."):
                _, _, j, name = key.split(".")
                state.setdefault(int(j), {})[name] = value
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return int(tensors["step"]) + 1

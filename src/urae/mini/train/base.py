"""The base model: flow matching at the native size, transformer and text encoders together.

A tenth of the captions are empty, so that the model knows the unconditional velocity too, and the guidance
input is always 1. One batch in twenty carries 160 text tokens instead of 32, so that the padding which a
plain `pipe(prompt)` brings along does no harm.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, FluxPipeline
from safetensors.torch import load_file
from torch import nn

from urae.mini.model import NATIVE_SIZE, TEXT_TOKENS, build_pipeline
from urae.mini.train.muon import Muon
from urae.mini.train.progress import Progress, write_atomically
from urae.mini.train.vae import load_vae, scene_pixels
from urae.mini.world import Scene, familiar_scene, scene

Tokens = tuple[torch.Tensor, torch.Tensor]
"""T5 token ids (B, 32) and CLIP token ids (B, 77)."""

FOCUS_FROM = 1900
"""From this step on only `familiar_scene`: two hours of two CPU cores are too short for 120 glyphs, and long
enough for these 16. Backgrounds, places, sizes and words are learnt from the whole world before."""

NUM_FAMILIAR = 6_000

PAIRS = 0.2
"""Share of scenes with two objects: below the world's third, since single objects come first."""


def train_base(
    out: Path, *, steps: int, batch: int = 32, num_scenes: int = 9_000, device: str = "cpu"
) -> None:
    """Write `base.safetensors`: raw and averaged weights of the transformer and both text encoders."""
    pipe = build_pipeline(load_vae(out))
    latents = Latents(pipe, num_scenes, out)
    pipe.to(device)
    weights = trained_weights(pipe)
    optimizers = optimizers_for(weights, peak=8e-4)
    average = {k: v.detach().clone() for k, v in weights.items()}
    first = _resume(out / "base.safetensors", weights, average, optimizers)
    progress = Progress(out / "base.jsonl")
    for step in range(first, steps + 1):
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * _rate(step, steps)
            optimizer.zero_grad()
        clean, tokens = latents.batch(step, batch)
        loss = flow_matching_loss(pipe, clean.to(device), tokens, step)
        loss.backward()
        nn.utils.clip_grad_norm_(list(weights.values()), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        for k, v in weights.items():
            average[k].lerp_(v.detach(), max(0.008, 1 / (step + 1)))
        progress.note(step, loss=loss.item())
        if step % 100 == 0 or step == steps:
            _checkpoint(out / "base.safetensors", step, weights, average, optimizers)


def _rate(step: int, steps: int) -> float:
    """Learning-rate factor: 100 steps of warm-up, flat, and linear to zero over the last eighth. Flat, because
    objects are still forming when a cosine has become small."""
    return min(1.0, step / 100, (steps + 1 - step) / (steps / 8))


def flow_matching_loss(pipe: FluxPipeline, clean: torch.Tensor, tokens: Tokens, step: int) -> torch.Tensor:
    """Mean squared error of the velocity at sigma drawn half uniformly, half around the middle."""
    noisy, sigma, target = noised(clean, step)
    length = 160 if step % 20 == 0 else TEXT_TOKENS
    text = encode_tokens(pipe, tokens, length=length)
    return (velocity(pipe, noisy, sigma, text, torch.ones_like(sigma)) - target).pow(2).mean()


def noised(clean: torch.Tensor, step: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Packed noisy latents (B, 64, 64), sigma (B,), packed velocity; a function of `step` alone."""
    generator = torch.Generator().manual_seed(step + 7_000_000)
    noise = torch.randn(clean.shape, generator=generator).to(clean.device)
    uniform = torch.rand(len(clean), generator=generator)
    middle = torch.sigmoid(0.3 + torch.randn(len(clean), generator=generator))
    sigma = torch.where(torch.arange(len(clean)) % 2 == 0, uniform, middle).to(clean.device)
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


class Latents:
    """Scenes of the whole world and familiar ones at the native size, each encoded once."""

    def __init__(self, pipe: FluxPipeline, num_scenes: int, out: Path) -> None:
        world = [scene(i, pairs=PAIRS) for i in range(num_scenes)]
        familiar = [familiar_scene(i) for i in range(NUM_FAMILIAR)]
        self.world = Pool(pipe, world, out / "latents.safetensors")
        self.familiar = Pool(pipe, familiar, out / "familiar.safetensors")
        self.empty = tokenize(pipe, [""])

    def batch(self, step: int, size: int) -> tuple[torch.Tensor, Tokens]:
        """Clean latents (size, 16, 16, 16) and captions: 36% detailed, 54% short, 10% empty."""
        rng = np.random.default_rng([step, 2])
        pool = self.familiar if step > FOCUS_FROM else self.world
        rows = torch.from_numpy(rng.integers(0, len(pool.mean), size=size))
        noise = torch.randn(size, *pool.mean.shape[1:], generator=torch.Generator().manual_seed(step))
        detailed = torch.from_numpy(rng.random(size) < 0.4)[:, None]
        empty = torch.from_numpy(rng.random(size) < 0.1)[:, None]
        t5, clip = (
            torch.where(
                empty, self.empty[i], torch.where(detailed, pool.detailed[i][rows], pool.short[i][rows])
            )
            for i in (0, 1)
        )
        return pool.mean[rows] + pool.std[rows] * noise, (t5, clip)


class Pool:
    """Posterior mean and std of scenes, from `cache` where it exists, and both captions as tokens."""

    def __init__(self, pipe: FluxPipeline, scenes: list[Scene], cache: Path) -> None:
        if not cache.exists():
            parts = [_encode(pipe.vae, scenes[i : i + 50]) for i in range(0, len(scenes), 50)]
            write_atomically({k: torch.cat([p[k] for p in parts]) for k in ("mean", "std")}, cache)
        latents = load_file(cache)
        self.mean, self.std = latents["mean"], latents["std"]
        self.short = tokenize(pipe, [s.caption() for s in scenes])
        self.detailed = tokenize(pipe, [s.caption(detailed=True) for s in scenes])


@torch.no_grad()
def _encode(vae: AutoencoderKL, scenes: list[Scene]) -> dict[str, torch.Tensor]:
    posterior = vae.encode(torch.stack([scene_pixels(s, NATIVE_SIZE) for s in scenes])).latent_dist
    scale, shift = vae.config.scaling_factor, vae.config.shift_factor
    return {"mean": (posterior.mean - shift) * scale, "std": posterior.std * scale}


def trained_weights(pipe: FluxPipeline) -> dict[str, nn.Parameter]:
    """Parameters by name: `transformer.*`, `text_encoder.*`, `text_encoder_2.*`."""
    parts = ("transformer", "text_encoder", "text_encoder_2")
    return {f"{part}.{name}": p for part in parts for name, p in getattr(pipe, part).named_parameters()}


def optimizers_for(weights: dict[str, nn.Parameter], *, peak: float) -> list[torch.optim.Optimizer]:
    """Muon at four times the `peak` learning rate for the matrices inside the blocks, AdamW for the rest."""
    inner = {
        k: p for k, p in weights.items() if "transformer_blocks" in k and p.ndim == 2 and ".norm" not in k
    }
    outer = [p for k, p in weights.items() if k not in inner]
    muon = Muon(list(inner.values()), lr=4 * peak)
    adamw = torch.optim.AdamW(outer, lr=peak, betas=(0.9, 0.98), weight_decay=0.0)
    muon.param_groups[0]["peak"], adamw.param_groups[0]["peak"] = 4 * peak, peak
    return [muon, adamw]


def _checkpoint(
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


def _resume(
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

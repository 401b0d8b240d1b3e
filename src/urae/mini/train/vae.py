"""The VAE: L1, gradients at three scales and a weak KL, on crops of scenes at 128, 256 and 512 px.

Crops of all three sizes at once, since the same VAE must serve the native size and the large ones.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from safetensors.torch import load_file

from urae.mini.model import NATIVE_SIZE, build_vae
from urae.mini.train.muon import Muon
from urae.mini.train.progress import StageLog, cosine, matrix_products, write_atomically
from urae.mini.world import Scene, render, scene


def train_vae(
    out: Path,
    *,
    steps: int,
    batch: int = 8,
    crop: int = 64,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> None:
    """L1 + gradients at three scales + a weak KL, on crops of scenes at 128, 256 and 512 px."""
    vae = build_vae().to(device)
    optimizers = _optimizers(vae, dtype)
    average = {k: v.clone() for k, v in vae.state_dict().items()}
    first = 1
    if (out / "vae.safetensors").exists():
        state = load_file(out / "vae.safetensors", device=device)
        first = int(state.pop("step")) + 1
        vae.load_state_dict({k[4:]: v for k, v in state.items() if k.startswith("raw.")})
        average = {k[4:]: v for k, v in state.items() if k.startswith("ema.")}
    pool = _pixel_pool()
    progress = StageLog(out / "vae.jsonl")
    for step in range(first, steps + 1):
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = 3e-3 * cosine(step, steps)
            optimizer.zero_grad()
        pixels = _crops(pool, batch, crop, np.random.default_rng([step, 1])).to(device)
        with matrix_products(device, dtype):
            moments = vae.encode(pixels).latent_dist.parameters
            posterior = DiagonalGaussianDistribution(moments.float())
            latents = posterior.sample(torch.Generator(device).manual_seed(step))
            error = vae.decode(latents).sample.float() - pixels
        kl = posterior.kl().mean() / posterior.mean[0].numel()
        loss = error.abs().mean() + _gradient_loss(error) + 1e-4 * kl
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        for k, v in vae.state_dict().items():
            average[k].lerp_(v, 0.005 if step > 500 else 0.05)
        progress.note(
            step, loss=loss.item(), psnr=-10 * math.log10(error.pow(2).mean().item() / 4), kl=kl.item()
        )
        if step % 250 == 0 or step == steps:
            state = {f"raw.{k}": v for k, v in vae.state_dict().items()}
            state |= {f"ema.{k}": v for k, v in average.items()}
            write_atomically(state | {"step": torch.tensor(step)}, out / "vae.safetensors")


def _optimizers(vae: AutoencoderKL, dtype: torch.dtype) -> list[torch.optim.Optimizer]:
    """Muon for the kernels between feature maps, AdamW for norms, biases and the two ends."""
    named = dict(vae.named_parameters())
    inner = {k for k, p in named.items() if p.ndim == 4 and "conv_in" not in k and "conv_out" not in k}
    outer = [p for k, p in named.items() if k not in inner]
    return [
        Muon([named[k] for k in sorted(inner)], lr=3e-3, dtype=dtype),
        torch.optim.AdamW(outer, lr=3e-3, betas=(0.9, 0.99), weight_decay=0.0),
    ]


def _pixel_pool() -> list[np.ndarray]:
    counts = {128: 1500, 256: 500, 512: 160}
    return [np.stack([np.asarray(render(scene(i), size)) for i in range(n)]) for size, n in counts.items()]


CROP_SHARES = (0.5, 0.25, 0.25)
"""Of crops at 128, 256 and 512 px: a latent of the native size has most to hold."""


def _crops(pool: list[np.ndarray], batch: int, crop: int, rng: np.random.Generator) -> torch.Tensor:
    """(batch, 3, crop, crop) in [-1, 1]."""
    cuts = []
    for _ in range(batch):
        pixels = pool[rng.choice(len(pool), p=CROP_SHARES)]
        x, y = rng.integers(0, pixels.shape[1] - crop + 1, size=2)
        cuts.append(pixels[rng.integers(len(pixels)), y : y + crop, x : x + crop])
    return torch.from_numpy(np.stack(cuts)).permute(0, 3, 1, 2).float() / 127.5 - 1


def _gradient_loss(error: torch.Tensor) -> torch.Tensor:
    """L1 of the error's finite differences, at full, half and quarter size: keeps edges sharp."""
    total = error.new_zeros(())
    for _ in range(3):
        total = total + error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
        error = F.avg_pool2d(error, 2)
    return total


def load_vae(out: Path) -> AutoencoderKL:
    """The averaged VAE, its latents normalised to mean 0 and standard deviation 1 over 64 scenes."""
    vae = build_vae()
    state = load_file(out / "vae.safetensors")
    vae.load_state_dict({k[4:]: v for k, v in state.items() if k.startswith("ema.")})
    pixels = torch.stack([scene_pixels(scene(i), NATIVE_SIZE) for i in range(64)])
    with torch.no_grad():
        latents = vae.encode(pixels).latent_dist.mean
    vae.register_to_config(
        shift_factor=round(latents.mean().item(), 4), scaling_factor=round(1 / latents.std().item(), 4)
    )
    return vae.eval()


def scene_pixels(scene: Scene, size: int) -> torch.Tensor:
    """(3, size, size) in [-1, 1]."""
    return torch.from_numpy(np.array(render(scene, size))).permute(2, 0, 1).float() / 127.5 - 1

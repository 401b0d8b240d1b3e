"""The VAE: how close reconstructions of held-out scenes are, and whether strips or tiles leave seams."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
import torch
from aims import at_least, at_most
from pictures import Row, by_way, estimate, recorded, save_sheet, sheet
from PIL import Image

from parts.bench import Bench, Part
from urae.execution.strips import ROWS, vae_run
from urae.mini import scene
from urae.mini.model import NATIVE_SIZE
from urae.mini.train.progress import HELD_OUT
from urae.mini.train.vae import scene_pixels

SIDES, NUM_SCENES = (128, 512), 500
WAYS = ("strips", "tiles")
COLUMNS = (
    "PSNR, dB",
    *(
        f"{way}: {what}"
        for way in WAYS
        for what in ("PSNR, dB", "mean difference", "largest difference", "seam")
    ),
)


def vae(bench: Bench) -> Part:
    """PSNR at both sizes; at 512 px also decoded in strips and in tiles of 128 px, diffusers' own."""
    wanted = {
        (bench.identity("vae", side), i): partial(_row, bench.pipe.vae, side, i)
        for side in SIDES
        for i in range(bench.scenes or NUM_SCENES)
    }
    rows = recorded(wanted, bench.folder("vae"))
    found: dict[str, Row] = {}
    for column in COLUMNS:
        for way, values in by_way(rows, column).items():
            found.setdefault(way, {"way": way, "scenes": len(values)})[column] = estimate(values)
    _pictures(bench)
    large = found["512 px"]
    return Part(
        aims=[
            at_least("VAE, PSNR of held-out scenes at 128 px", 30, found["128 px"]["PSNR, dB"], " dB"),
            at_least("VAE, PSNR of held-out scenes at 512 px", 30, large["PSNR, dB"], " dB"),
            at_most("VAE in strips, steps at their borders (1: as elsewhere)", 1.05, large["strips: seam"]),
            at_most("VAE in tiles, steps at their borders (1: as elsewhere)", 1.05, large["tiles: seam"]),
        ],
        tables={
            "Reconstruction. Differences are those to whole decoding, in levels of 255; seam: the mean step between "
            "neighbouring pixels across borders of strips or tiles over that elsewhere, over the same of the "
            "whole": list(found.values())
        },
        differences={},
    )


@torch.no_grad()
def _row(vae: Any, side: int, number: int) -> Row:
    truth, latents, whole = _decoded(vae, side, number)
    row: Row = {"way": f"{side} px", "prompt": number, "PSNR, dB": _psnr(whole, truth)}
    if side > NATIVE_SIZE:
        with vae_run(vae, "strips"):
            strips = vae.decode(latents).sample.clamp(-1, 1)
        tiled = vae.tiled_decode(latents).sample.clamp(-1, 1)
        row |= _compared("strips", strips, truth, whole, list(range(ROWS, side, ROWS)))
        row |= _compared("tiles", tiled, truth, whole, borders(vae, side))
    return row


def _compared(
    way: str, decoded: torch.Tensor, truth: torch.Tensor, whole: torch.Tensor, borders: list[int]
) -> Row:
    difference = (decoded - whole).abs() * 127.5
    return {
        f"{way}: PSNR, dB": _psnr(decoded, truth),
        f"{way}: mean difference": difference.mean().item(),
        f"{way}: largest difference": difference.max().item(),
        f"{way}: seam": seam(decoded, borders) / seam(whole, borders),
    }


@torch.no_grad()
def _decoded(vae: Any, side: int, number: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Truth, latents and reconstruction of a held-out scene, (1, 3, side, side) in [-1, 1]."""
    truth = scene_pixels(scene(HELD_OUT + number), side)[None]
    latents = vae.encode(truth).latent_dist.mode()
    return truth, latents, vae.decode(latents).sample.clamp(-1, 1)


def _psnr(decoded: torch.Tensor, truth: torch.Tensor) -> float:
    return -10 * math.log10((decoded - truth).pow(2).mean().item() / 4)


def borders(vae: Any, side: int) -> list[int]:
    """Columns of a tiled picture at which a tile begins, and at which the blending with the one before it ends."""
    tile = vae.tile_sample_min_size
    blend = int(tile * vae.tile_overlap_factor)
    starts = range(tile - blend, side, tile - blend)
    return [at for start in starts for at in (start, start + blend) if at < side]


def seam(pixels: torch.Tensor, borders: list[int]) -> float:
    """Mean step between neighbours across `borders`, in rows and columns, over the mean of all other steps."""
    at_border = torch.zeros(pixels.shape[-1] - 1, dtype=torch.bool)
    at_border[[border - 1 for border in borders]] = True
    steps = torch.stack([side.diff(dim=-1).abs().mean((0, 1, 2)) for side in (pixels, pixels.mT)])
    return (steps[:, at_border].mean() / steps[:, ~at_border].mean()).item()


@torch.no_grad()
def _pictures(bench: Bench) -> None:
    """Truth and reconstruction of the first scenes, at 512 px a part in the middle, pixel by pixel."""
    rows: dict[str, list[Image.Image]] = {}
    numbers = range(min(6, bench.scenes or 6))
    for number in numbers:
        for side in SIDES:
            truth, latents, whole = _decoded(bench.pipe.vae, side, number)
            part = "" if side == NATIVE_SIZE else ", a quarter of its side, in the middle"
            rows.setdefault(f"{side} px: truth{part}", []).append(_image(truth))
            rows.setdefault(f"{side} px: decoded", []).append(_image(whole))
            if side > NATIVE_SIZE:
                tiled = bench.pipe.vae.tiled_decode(latents).sample.clamp(-1, 1)
                rows.setdefault(f"{side} px: decoded in tiles", []).append(_image(tiled))
    captions = [scene(HELD_OUT + number).caption() for number in numbers]
    save_sheet(sheet(rows, captions, cell=NATIVE_SIZE), bench.images / "miniature-vae.png")


def _image(pixels: torch.Tensor) -> Image.Image:
    """The middle 128 px."""
    start = (pixels.shape[-1] - NATIVE_SIZE) // 2
    middle = pixels[0, :, start : start + NATIVE_SIZE, start : start + NATIVE_SIZE]
    return Image.fromarray(
        np.asarray((middle.permute(1, 2, 0) + 1) * 127.5 + 0.5).clip(0, 255).astype(np.uint8)
    )

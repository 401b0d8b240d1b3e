"""Guidance as an input against explicit classifier-free guidance of the teacher: how far the velocities are apart.

The teacher is the model before distillation, which the package does not hold: it comes from the checkpoints of
`python -m urae.mini.train`.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from aims import at_most
from pictures import Draw, Row, by_way, estimate, recorded

from parts.bench import Bench, Part
from urae.mini import familiar_scene, scene
from urae.mini.model import NATIVE_SIZE
from urae.mini.train.base import encode_tokens, load_averaged, noised, tokenize, velocity
from urae.mini.train.distil import guided_velocity
from urae.mini.train.progress import HELD_OUT
from urae.mini.train.vae import scene_pixels

GUIDANCES = (1.0, 2.0, 3.0, 3.5, 4.0, 5.0)
NUM_SCENES, NUM_WORLD = 500, 100
STAGES = ("vae", "base", "text", "pairs")
"""What the teacher is made by, in order."""
THIRDS = ("sigma below 1/3", "sigma in the middle", "sigma above 2/3")


def check_checkpoints(folder: Path) -> None:
    """End with the commands that make the teacher, if it is not there."""
    there = {name for name in STAGES if (folder / f"{name}.safetensors").exists()}
    # The last stage holds all weights but the VAE's, so what it was made from may be gone.
    wanted = STAGES if "pairs" not in there else ("vae",)
    missing = [name for name in wanted if name not in there]
    if missing:
        commands = " and ".join(f"python -m urae.mini.train {name} --out {folder}" for name in missing)
        raise SystemExit(f"the part guidance needs the teacher of the distillation: make it with {commands}")


def guidance(bench: Bench) -> Part:
    """Relative error of the velocity of noisy held-out scenes at uniform noise levels, for each guidance."""
    teacher = load_averaged(bench.checkpoints, "pairs")
    worlds: list[tuple[str, Draw, int]] = [
        ("familiar", familiar_scene, bench.scenes or NUM_SCENES),
        ("whole world", scene, bench.scenes or NUM_WORLD),
    ]
    wanted = {
        (bench.identity("guidance", name), i): partial(_row, bench.pipe, teacher, name, draw, i)
        for name, draw, num in worlds
        for i in range(num)
    }
    rows = recorded(wanted, bench.folder("guidance"))
    found = [_line(scale, rows) for scale in GUIDANCES]
    return Part(
        aims=[
            at_most(f"relative velocity error at {row['way']}, familiar scenes", 0.1, row["familiar"])
            for row in found
        ],
        tables={
            "Relative velocity error against the teacher's explicit guidance; by noise level: familiar scenes": found
        },
        differences={},
    )


def _line(scale: float, rows: list[Row]) -> Row:
    """The errors at one guidance: of either kind of scenes, and by noise level."""
    column = f"g = {scale:g}"
    line: Row = {"way": column}
    line |= {name: estimate(values) for name, values in by_way(rows, column).items()}
    familiar = [row for row in rows if row["way"] == "familiar"]
    for place, name in enumerate(THIRDS):
        third = [row for row in familiar if int(3 * row["sigma"]) == place]
        if third:
            line[name] = estimate(by_way(third, column)["familiar"])
    return line


@torch.no_grad()
def _row(pipe: Any, teacher: Any, way: str, draw: Draw, number: int) -> Row:
    """|student - teacher| / |teacher| for all guidances at one noise level, drawn with the number."""
    shown, scales = draw(HELD_OUT + number), torch.tensor(GUIDANCES)
    one, sigma, _ = noised(_clean(pipe, scene_pixels(shown, NATIVE_SIZE)), HELD_OUT + number)
    noisy, sigmas = one.repeat(len(scales), 1, 1), sigma.repeat(len(scales))
    caption, empty = tokenize(pipe, [shown.caption()]), tokenize(pipe, [""])
    several = tuple(tokens.repeat(len(scales), 1) for tokens in caption)
    target = guided_velocity(teacher, noisy, sigmas, several, empty, scales)
    error = velocity(pipe, noisy, sigmas, encode_tokens(pipe, several), scales) - target
    relative = error.flatten(1).norm(dim=1) / target.flatten(1).norm(dim=1)
    errors = {f"g = {g:g}": float(value) for g, value in zip(GUIDANCES, relative, strict=True)}
    return {"way": way, "prompt": number, "sigma": sigma.item(), **errors}


def _clean(pipe: Any, pixels: torch.Tensor) -> torch.Tensor:
    """Latents (1, 16, 16, 16), normalised as the transformer knows them."""
    config = pipe.vae.config
    return (pipe.vae.encode(pixels[None]).latent_dist.mode() - config.shift_factor) * config.scaling_factor

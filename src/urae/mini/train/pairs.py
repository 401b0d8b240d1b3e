"""The base, trained on until it tells two objects apart.

After `base` single objects are drawn well, but two of them become two blends: T5 does not know their order (`text`
mends that), and the pooled caption of CLIP, which modulates every image token alike, says which objects there are. So
most scenes hold two objects here, CLIP's caption is left out half of the time, as Stable Diffusion 3 does (Esser et
al., 2024, B.3), and a `Layout` teaches what is where.
"""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import FluxPipeline

from urae.mini.train.base import Part, SceneLatents, load_averaged, train_flow
from urae.mini.train.layout import Layout
from urae.mini.train.text import load_text
from urae.mini.world import Scene, familiar_scene, scene

FIRST_SEED = 100_000
"""`base` has seen those below."""

SHARES = {"pairs": 0.6, "singles": 0.25, "familiar": 0.15}
COUNTS = {"pairs": 12_000, "singles": 5_000, "familiar": 3_000}
POOLED_DROPOUT = 0.5
DECAY = 0.4
"""The last part of the run, in which the learning rate falls to zero."""


def train_pairs(
    out: Path, *, steps: int, batch: int = 32, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> None:
    """Write `pairs.safetensors`, which starts as the average of `base.safetensors` with the T5 of
    `text.safetensors`."""
    pipe = load_averaged(out, "base").to(device)
    latents = pairs_latents(pipe, out, pooled_dropout=POOLED_DROPOUT, dtype=dtype)
    torch.manual_seed(0)
    layout = Layout(pipe, after=1, share=0.1, middle=1.0).to(device)
    load_text(out, pipe.text_encoder_2, layout.places)
    train_flow(
        pipe, latents, out / "pairs", steps=steps, batch=batch, dtype=dtype, decay=DECAY, layout=layout
    )


def pairs_latents(
    pipe: FluxPipeline, out: Path, *, pooled_dropout: float = 0.0, dtype: torch.dtype = torch.float32
) -> SceneLatents:
    """Mostly pairs, and of the others more familiar scenes than there would be."""

    def scenes(name: str) -> list[Scene]:
        seeds = range(FIRST_SEED, FIRST_SEED + COUNTS[name])
        if name == "familiar":
            return [familiar_scene(i) for i in seeds]
        return [scene(i, pairs=1 if name == "pairs" else 0) for i in seeds]

    parts = [Part(share=share, scenes=scenes(name)) for name, share in SHARES.items()]
    return SceneLatents(
        pipe, parts, out / "pairs-latents.safetensors", pooled_dropout=pooled_dropout, dtype=dtype
    )

"""The recogniser: binary cross-entropy on which glyphs are present, cross-entropy on the background.

Pictures are true renderings, shifted, slightly blurred, noised and re-coloured, so that it looks at shape.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from urae.mini.recogniser import GLYPHS, GROUNDS, Recogniser, to_input
from urae.mini.train.muon import Muon
from urae.mini.train.progress import HELD_OUT, StageLog, cosine, matrix_products, write_atomically
from urae.mini.world import Scene, render, scene


def train_recogniser(
    out: Path,
    *,
    steps: int,
    batch: int = 48,
    num_scenes: int = 10_000,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write `recogniser.safetensors` and print the share of held-out truth that it gets right."""
    torch.manual_seed(0)
    network = Recogniser().to(device).train()
    pixels = torch.stack(
        [(to_input(render(scene(i), 128)) * 127.5).to(torch.int8) for i in range(num_scenes)]
    )
    present, ground = _labels([scene(i) for i in range(num_scenes)])
    inner = [p for p in network.body.parameters() if p.ndim == 4][1:]
    outer = [p for p in network.parameters() if all(p is not q for q in inner)]
    optimizers = [Muon(inner, lr=3e-3, dtype=dtype), torch.optim.AdamW(outer, lr=3e-3, weight_decay=0.01)]
    progress = StageLog(out / "recogniser.jsonl")
    for step in range(1, steps + 1):
        generator = torch.Generator().manual_seed(step)
        rows = torch.randint(num_scenes, (batch,), generator=generator)
        seen = _augment(pixels[rows].float() / 127.5, generator).to(device)
        with matrix_products(device, dtype):
            votes, grounds = (part.float() for part in network(seen))
        # The strongest place decides; a smooth maximum lets the others learn too.
        logits = torch.logsumexp(votes.flatten(2) * 2, dim=2) / 2 - 2
        loss = 20 * F.binary_cross_entropy_with_logits(logits, present[rows].to(device))
        loss = loss + 0.3 * F.cross_entropy(grounds, ground[rows].to(device))
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = 3e-3 * cosine(step, steps)
            optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        progress.note(step, loss=loss.item())
    write_atomically(network.state_dict(), out / "recogniser.safetensors")
    print({size: accuracy(network.eval().cpu(), size) for size in (128, 256, 512)})


def accuracy(network: Recogniser, size: int, *, num: int = 500) -> dict[str, float]:
    """Shares of held-out true renderings at `size` px that are recognised."""
    scenes = [scene(HELD_OUT + i) for i in range(num)]
    seen = network.look([render(s, size) for s in scenes], [len(s.things) for s in scenes])
    verdicts = [look.agrees(s) for look, s in zip(seen, scenes, strict=True)]
    return {
        key: round(float(np.mean([v[key] for v in verdicts if key in v])), 4)
        for key in ("object", "style", "background", "relation")
    }


def _labels(scenes: list[Scene]) -> tuple[torch.Tensor, torch.Tensor]:
    present = torch.zeros(len(scenes), len(GLYPHS))
    for row, s in enumerate(scenes):
        for thing in s.things:
            present[row, GLYPHS.index((thing.name, thing.style))] = 1
    return present, torch.tensor([GROUNDS.index(s.background) for s in scenes])


def _augment(pixels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    shift = torch.randint(-4, 5, (2,), generator=generator).tolist()
    moved = torch.roll(pixels, shift, dims=(2, 3))
    if torch.rand((), generator=generator) < 0.4:
        moved = F.avg_pool2d(F.pad(moved, (1, 1, 1, 1), mode="replicate"), 3, 1)
    noise = torch.randn(moved.shape, generator=generator) * 0.08 * torch.rand((), generator=generator)
    gain = 1 + 0.2 * (torch.rand(len(moved), 3, 1, 1, generator=generator) - 0.5)
    return moved * gain + noise

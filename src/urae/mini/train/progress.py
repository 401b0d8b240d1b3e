"""What every stage shares: its log, its checkpoints, its precision, its learning-rate schedule."""

from __future__ import annotations

import json
import math
import os
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

HELD_OUT = 1_000_000
"""Seeds from here on are never trained on."""


class StageLog:
    """The log of one stage: a JSON line every `every` steps, with the mean of what was noted since."""

    def __init__(self, path: Path, *, every: int = 50) -> None:
        self.path, self.every, self.start = path, every, time.time()
        self.noted: list[dict[str, float]] = []

    def note(self, step: int, **values: float) -> None:
        self.noted.append(values)
        if step % self.every == 0:
            means = {k: round(float(np.mean([v[k] for v in self.noted])), 5) for k in values}
            line = json.dumps({"step": step, "seconds": round(time.time() - self.start), **means})
            with self.path.open("a") as file:
                file.write(line + "\n")
            print(line, flush=True)
            self.noted.clear()


def matrix_products(device: str, dtype: torch.dtype) -> torch.autocast:
    """A context in which matrix products and convolutions compute in `dtype`, weights staying in fp32."""
    return torch.autocast(torch.device(device).type, dtype, enabled=dtype is not torch.float32)


def write_atomically(tensors: dict[str, torch.Tensor], path: Path) -> None:
    save_file({k: v.contiguous() for k, v in tensors.items()}, path.with_suffix(".tmp"))
    os.replace(path.with_suffix(".tmp"), path)


def cosine(step: int, steps: int, *, warmup: int = 100) -> float:
    """Learning-rate factor in (0, 1]: linear warm-up, then a cosine to 2%."""
    return min(step / warmup, 0.02 + 0.98 * (0.5 + 0.5 * math.cos(math.pi * min(step / steps, 1))))

"""All chance in training, as a function of (seed, step, sample) alone.

Sample means the place of an image in the step's global batch. Each draw has its own counter-based generator
(Philox), keyed through numpy's `SeedSequence` by those three numbers and by what is drawn. Nothing is drawn
from a shared stream, so a result depends neither on the number of processes or data workers, nor on how a
batch is split, nor on when a run was stopped and continued. torch's CPU generator is not used because it
keeps only the lower 32 bits of its seed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

__all__ = ["PURPOSES", "generator", "normal"]

PURPOSES = {"sigma": 2, "posterior": 3, "noise": 4, "validation": 5, "policy": 6}
"""What is drawn, and the number that keeps its stream apart from the others; 1 is the caption, which the data set
draws (`urae.data.dataset`)."""


def generator(*, seed: int, step: int, sample: int, purpose: str) -> np.random.Generator:
    """The generator of one draw. All three numbers in [0, 2**32); purpose: a key of `PURPOSES`."""
    key = np.random.SeedSequence((seed, step, sample, PURPOSES[purpose]))
    return np.random.Generator(np.random.Philox(key))


def normal(shape: Sequence[int], *, seed: int, step: int, sample: int, purpose: str) -> Tensor:
    """Standard normal numbers of this shape, fp32, on the CPU."""
    rng = generator(seed=seed, step=step, sample=sample, purpose=purpose)
    return torch.from_numpy(rng.standard_normal(tuple(shape), dtype=np.float32))

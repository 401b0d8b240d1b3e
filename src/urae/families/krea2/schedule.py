"""Krea 2's timestep shift: exp(mu), with mu linear in the number of image tokens for Raw, 1.15 for Turbo."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from diffusers.pipelines.krea2.pipeline_krea2 import calculate_shift

from urae.families.family import Size
from urae.families.flux.schedule import check_can_be_static, static_scheduler
from urae.families.krea2.guidance import is_distilled
from urae.families.krea2.latents import Krea2Latents

__all__ = ["Krea2Schedule"]

SETTINGS = {
    "base_image_seq_len": 256,
    "max_image_seq_len": 6400,
    "base_shift": 0.5,
    "max_shift": 1.15,
}
"""The pipeline's own defaults, for schedulers that lack a setting."""

TURBO = 1.15
"""mu of distilled checkpoints, at every size."""


@dataclass(frozen=True)
class Krea2Schedule:
    """2.5 for Raw at 1024 px, 9.0 at 2048 px, 1,650 at 4096 px; 3.16 for Turbo."""

    def shift(self, pipe: Any, size: Size, steps: int) -> float:
        return _shift(pipe, pipe.scheduler, size)

    def own_shift(self, pipe: Any, scheduler: Any) -> float:
        """What the scheduler uses at the native size. A dynamic one never looks at the `shift` of its configuration,
        which in FLUX.1-dev's happens to be about this."""
        check_can_be_static(scheduler)
        native = Krea2Latents().native_size(pipe)
        return _shift(pipe, scheduler, (native, native))

    def static(self, scheduler: Any, shift: float) -> Any:
        return static_scheduler(scheduler, shift)


def _shift(pipe: Any, scheduler: Any, size: Size) -> float:
    config = scheduler.config
    if not config.get("use_dynamic_shifting"):
        return float(config.shift)
    mu = TURBO if is_distilled(pipe) else _mu(pipe, config, size)
    return math.exp(mu) if config.time_shift_type == "exponential" else mu


def _mu(pipe: Any, config: Any, size: Size) -> float:
    width, height = (side // Krea2Latents().pixels_per_token(pipe) for side in size)
    return float(
        calculate_shift(width * height, *(config.get(name, value) for name, value in SETTINGS.items()))
    )

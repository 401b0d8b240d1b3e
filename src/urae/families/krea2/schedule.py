"""Krea 2's timestep shift: exp(mu), with mu linear in the number of image tokens for Raw, 1.15 for Turbo."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from urae.families.family import Latents, Size
from urae.families.flux.schedule import NativeSchedule, shift_by_tokens
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
class Krea2Schedule(NativeSchedule):
    """2.5 for Raw at 1024 px, 9.0 at 2048 px, 1,650 at 4096 px; 3.16 for Turbo."""

    latents: Latents = Krea2Latents()

    def by_scheduler(self, pipe: Any, scheduler: Any, size: Size) -> float:
        config = scheduler.config
        if not (is_distilled(pipe) and config.get("use_dynamic_shifting")):
            token = self.latents.pixels_per_token(pipe)
            return shift_by_tokens(scheduler, size, pixels_per_token=token, **SETTINGS)
        return math.exp(TURBO) if config.time_shift_type == "exponential" else TURBO

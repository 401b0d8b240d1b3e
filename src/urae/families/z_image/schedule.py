"""Z-Image's timestep shift, which is static in its published schedulers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from urae.families.family import Size
from urae.families.flux.schedule import SETTINGS, FluxSchedule, check_can_be_static, shift_by_tokens
from urae.families.z_image.latents import ZImageLatents

__all__ = ["ZImageSchedule"]


@dataclass(frozen=True)
class ZImageSchedule(FluxSchedule):
    """That of the scheduler's configuration at every size. A scheduler with a dynamic shift is followed as the pipeline
    follows it, and its own static one is that of the native size."""

    def shift(self, pipe: Any, size: Size, steps: int) -> float:
        return _shift(pipe, pipe.scheduler, size)

    def own_shift(self, pipe: Any, scheduler: Any) -> float:
        check_can_be_static(scheduler)
        native = ZImageLatents().native_size(pipe)
        return _shift(pipe, scheduler, (native, native))


def _shift(pipe: Any, scheduler: Any, size: Size) -> float:
    token = ZImageLatents().pixels_per_token(pipe)
    return shift_by_tokens(scheduler, size, pixels_per_token=token, **SETTINGS)

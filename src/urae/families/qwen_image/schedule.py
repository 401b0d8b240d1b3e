"""Qwen-Image's timestep shift: exp(mu), with mu linear in the number of image tokens, and all noise levels stretched so
that the last is 0.02 (`shift_terminal`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from urae.families.family import Size
from urae.families.flux.schedule import (
    SETTINGS,
    FluxSchedule,
    check_can_be_static,
    shift_by_tokens,
    static_scheduler,
)
from urae.families.qwen_image.latents import QwenImageLatents

__all__ = ["QwenImageSchedule"]


@dataclass(frozen=True)
class QwenImageSchedule(FluxSchedule):
    """2.0 at 1024 px, 2.3 at the native 1328 px, 3.7 at 2048 px, 45 at 4096 px, before the stretching."""

    def shift(self, pipe: Any, size: Size, steps: int) -> float:
        return _shift(pipe, pipe.scheduler, size)

    def own_shift(self, pipe: Any, scheduler: Any) -> float:
        """What the scheduler uses at the native size."""
        check_can_be_static(scheduler)
        native = QwenImageLatents().native_size(pipe)
        return _shift(pipe, scheduler, (native, native))

    def static(self, scheduler: Any, shift: float) -> Any:
        """Without the stretching, which would make of a shift another."""
        return static_scheduler(scheduler, shift, shift_terminal=None)


def _shift(pipe: Any, scheduler: Any, size: Size) -> float:
    token = QwenImageLatents().pixels_per_token(pipe)
    return shift_by_tokens(scheduler, size, pixels_per_token=token, **SETTINGS)

"""Qwen-Image's timestep shift: exp(mu), with mu linear in the number of image tokens, and all noise levels stretched so
that the last is 0.02 (`shift_terminal`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from urae.families.family import Latents
from urae.families.flux.schedule import NativeSchedule, static_scheduler
from urae.families.qwen_image.latents import QwenImageLatents

__all__ = ["QwenImageSchedule"]


@dataclass(frozen=True)
class QwenImageSchedule(NativeSchedule):
    """2.0 at 1024 px, 2.3 at the native 1328 px, 3.7 at 2048 px, 45 at 4096 px, before the stretching."""

    latents: Latents = QwenImageLatents()

    def static(self, scheduler: Any, shift: float) -> Any:
        """Without the stretching, which would make of a shift another."""
        return static_scheduler(scheduler, shift, shift_terminal=None)

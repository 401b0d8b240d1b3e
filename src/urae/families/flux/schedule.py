"""FLUX.1's timestep shift: exp(mu), with mu linear in the number of image tokens."""

from __future__ import annotations

import inspect
import math
from dataclasses import dataclass
from typing import Any

from diffusers.pipelines.flux.pipeline_flux import calculate_shift

from urae.families.family import Latents, Size
from urae.families.flux.latents import FluxLatents

__all__ = ["SETTINGS", "FluxSchedule", "NativeSchedule", "shift_by_tokens", "static_scheduler"]

SETTINGS = {
    "base_image_seq_len": 256,
    "max_image_seq_len": 4096,
    "base_shift": 0.5,
    "max_shift": 1.15,
}
"""The pipeline's own defaults, for schedulers that lack a setting."""


@dataclass(frozen=True)
class FluxSchedule:
    """3.16 for FLUX.1-dev at 1024 px, 25.3 at 2048 px, 104,000 at 4096 px; its own static shift is 3.0, schnell's
    1.0."""

    def shift(self, pipe: Any, size: Size, steps: int) -> float:
        token = FluxLatents().pixels_per_token(pipe)
        return shift_by_tokens(pipe.scheduler, size, pixels_per_token=token, **SETTINGS)

    def own_shift(self, pipe: Any, scheduler: Any) -> float:
        check_can_be_static(scheduler)
        return float(scheduler.config.shift)

    def static(self, scheduler: Any, shift: float) -> Any:
        return static_scheduler(scheduler, shift)


@dataclass(frozen=True)
class NativeSchedule(FluxSchedule):
    """The own static shift is what the scheduler uses at the native size. A dynamic one never looks at the `shift` of
    its configuration, which in FLUX.1-dev's happens to be about this."""

    latents: Latents = FluxLatents()

    def shift(self, pipe: Any, size: Size, steps: int) -> float:
        return self.by_scheduler(pipe, pipe.scheduler, size)

    def own_shift(self, pipe: Any, scheduler: Any) -> float:
        check_can_be_static(scheduler)
        native = self.latents.native_size(pipe)
        return self.by_scheduler(pipe, scheduler, (native, native))

    def by_scheduler(self, pipe: Any, scheduler: Any, size: Size) -> float:
        token = self.latents.pixels_per_token(pipe)
        return shift_by_tokens(scheduler, size, pixels_per_token=token, **SETTINGS)


def shift_by_tokens(scheduler: Any, size: Size, *, pixels_per_token: int, **defaults: float) -> float:
    """exp(mu) at a size, or the static shift of a scheduler without dynamic shifting."""
    config = scheduler.config
    if not config.get("use_dynamic_shifting"):
        return float(config.shift)
    width, height = size
    tokens = (width // pixels_per_token) * (height // pixels_per_token)
    mu = calculate_shift(tokens, *(config.get(name, value) for name, value in defaults.items()))
    return math.exp(mu) if config.time_shift_type == "exponential" else mu


def static_scheduler(scheduler: Any, shift: float, **more: Any) -> Any:
    """The scheduler built anew from its config: neither `scheduler.config.shift` nor `time_shift` can be set on a live
    one."""
    check_can_be_static(scheduler)
    return type(scheduler).from_config(scheduler.config, use_dynamic_shifting=False, shift=shift, **more)


def check_can_be_static(scheduler: Any) -> None:
    """Raise ValueError for a scheduler without a static timestep shift."""
    settings = inspect.signature(type(scheduler).__init__).parameters
    if "shift" not in settings or "use_dynamic_shifting" not in settings:
        raise ValueError(
            f"{type(scheduler).__name__} has no static timestep shift: give the pipeline a "
            "FlowMatchEulerDiscreteScheduler before a resolution policy"
        )

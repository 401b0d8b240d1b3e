"""FLUX.2's timestep shift: exp(mu), with mu by the number of image tokens and of steps.

Up to 4300 tokens mu goes in a straight line between those for 10 and for 200 steps; above, it is that for 200 steps,
whatever their number. So at 28 steps the shift falls from 8.7 to 3.2 where a picture grows past 1049 px, and
comes back to 8.7 at 1600 px. Both are stock behaviour, and without a policy it is left alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from diffusers.pipelines.flux2.pipeline_flux2 import compute_empirical_mu

from urae.families.family import Size
from urae.families.flux.schedule import FluxSchedule, check_can_be_static
from urae.families.flux2.latents import Flux2Latents
from urae.families.krea2.guidance import is_distilled

__all__ = ["Flux2Schedule"]

STEPS = {False: 28, True: 4}
"""Of which the own static shift is taken, by whether the checkpoint is distilled."""


@dataclass(frozen=True)
class Flux2Schedule(FluxSchedule):
    """At 28 steps 8.6 at 1024 px, 25 at 2048 px, 104,000 at 4096 px. The own static shift is that of the native size:
    8.6, and 9.9 for klein in its four steps."""

    def shift(self, pipe: Any, size: Size, steps: int) -> float:
        return _shift(pipe, pipe.scheduler, size, steps)

    def own_shift(self, pipe: Any, scheduler: Any) -> float:
        check_can_be_static(scheduler)
        native = Flux2Latents().native_size(pipe)
        return _shift(pipe, scheduler, (native, native), STEPS[is_distilled(pipe)])


def _shift(pipe: Any, scheduler: Any, size: Size, steps: int) -> float:
    config = scheduler.config
    if not config.get("use_dynamic_shifting"):
        return float(config.shift)
    width, height = (side // Flux2Latents().pixels_per_token(pipe) for side in size)
    mu = compute_empirical_mu(width * height, steps)
    return math.exp(mu) if config.time_shift_type == "exponential" else mu

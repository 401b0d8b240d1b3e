"""SDEdit: upscale the native picture, add noise up to a start sigma, and denoise from there.

The stock image-to-image pipeline where the family has one. Its `strength` says little by itself: the noise that it
starts from depends on the timestep shift (strength 0.7 is sigma 0.70 at shift 1, 0.875 at shift 3, and 0.999996 under
FLUX.1-dev's dynamic shift at 4096 px, where nothing is left of the picture). So the option is the start sigma itself,
and the schedule is laid below it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from urae.families import family_of
from urae.generation.direct import drawing_of
from urae.generation.native import TwoPass, upscaled
from urae.generation.request import Request
from urae.resolution import dynamic_shift

__all__ = [
    "Sdedit",
    "check_start_sigma",
    "describe_start",
    "nominal_strength",
    "sigmas_from",
]


@dataclass(frozen=True, kw_only=True)
class Sdedit(TwoPass):
    """Options of SDEdit. The defaults are the recipe that the published code points to: strength 0.7 of 20 steps,
    guidance 7.5, shift 3."""

    name: ClassVar[str] = "sdedit"
    steps: ClassVar[int] = 14
    guidance: ClassVar[float] = 7.5

    start_sigma: float = 0.875
    """Noise level in (0, 1] to which the upscaled picture is taken back; at 1 nothing of it is left."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_start_sigma(self.start_sigma)

    def draw(self, pipe: Any, request: Request, *, on_step: Callable[[], None]) -> Image.Image:
        """Finish `request.native` at the target size in `request.steps` steps, all of them run."""
        region = {} if request.mask is None else {"mask": request.mask}
        return family_of(pipe).pipelines.redraw(
            pipe,
            drawing_of(request, on_step),
            upscaled(request),
            sigmas=sigmas_from(pipe, request, self.start_sigma),
            start_sigma=self.start_sigma,
            **region,
        )

    def describe(self, *, steps: int, shift: float) -> str:
        """The start sigma in the terms of stock diffusers, for `steps` steps under a timestep shift."""
        return describe_start(self.start_sigma, steps=steps, shift=shift)


def check_start_sigma(start_sigma: float) -> None:
    """Raise ValueError for a start sigma that is no noise level."""
    if not 0 < start_sigma <= 1:
        raise ValueError(f"start_sigma is {start_sigma}: expected a noise level in (0, 1], such as 0.875")


def describe_start(start_sigma: float, *, steps: int, shift: float) -> str:
    """A start sigma in the terms of stock diffusers."""
    strength = nominal_strength(start_sigma, shift=shift)
    return (
        f"start sigma {start_sigma:g} is strength {strength:.4g} under shift {shift:.4g}: "
        f"{steps} steps run, of nominally {steps / strength:.4g}"
    )


def sigmas_from(pipe: Any, request: Request, start_sigma: float) -> np.ndarray:
    """The sigmas (steps,) to give to a stock pipeline, before its shift, so that it starts at `start_sigma`."""
    strength = nominal_strength(start_sigma, shift=dynamic_shift(pipe, request.size, steps=request.steps))
    return np.linspace(strength, strength / request.steps, request.steps)


def nominal_strength(start_sigma: float, *, shift: float) -> float:
    """The `strength` in (0, 1] by which stock diffusers starts at `start_sigma` under a timestep shift.

    The inverse of sigma = shift u / (1 + (shift - 1) u): sigma 0.875 under shift 3 is 0.7.
    """
    return start_sigma / (shift - (shift - 1) * start_sigma)

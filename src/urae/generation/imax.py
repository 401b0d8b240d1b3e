"""I-Max: a second pass from fresh noise, whose low frequencies are drawn towards the upscaled native picture.

The guide is a straight path too: from the noise of the moment to the guide's clean latents, with velocity
v_ref = (noisy - guide) / sigma. The model's velocity v becomes v + c P(v_ref - v), where P is a low-pass and c
falls from 1 to 0 (I-Max). Unlike in the published code, every size that the model can make is fine.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, get_args

import torch
from PIL import Image
from torch import Tensor

from urae.execution import inputs_changed
from urae.families import family_of
from urae.generation.direct import draw
from urae.generation.guide import Step, low_pass, velocity_corrected
from urae.generation.native import TwoPass, encoded, upscaled
from urae.generation.patches import is_shifted, patches_shifted
from urae.generation.request import Request
from urae.resolution import ResolutionPolicy, Size, native_size, pixels_per_token

__all__ = ["Imax", "Schedule", "guided"]

Schedule = Literal["cosine_decay", "constant", "cosine_shift"]
"""v + c P(v_ref - v) with c = (1 + cos(pi i / N)) / 2; the same with c = 1; c (v_ref - v) + (1 - c) P(v_ref - v)."""


@dataclass(frozen=True, kw_only=True)
class Imax(TwoPass):
    """Options of I-Max; the defaults are its authors'."""

    name: ClassVar[str] = "imax"
    steps: ClassVar[int] = 30
    guidance: ClassVar[float] = 7.0

    schedule: Schedule = "cosine_decay"
    """How the guide's pull changes over the steps: cosine_decay, constant or cosine_shift."""
    weight: float = 1.0
    """Factor in [0, 1] on the pull; 0 is the direct method."""
    low_pass_level: int = 1
    """P averages over blocks of 2^level latents (2^level x 8 px); 0 is the identity, all frequencies."""
    shift: float | Literal["policy"] = 6.0
    """Timestep shift of the second pass, in place of the policy's; "policy" keeps that."""
    shifted_patches: bool = False
    """Let every other step, from the first, cut the latents into tokens half a token further."""
    repeat_text: bool = False
    """Repeat the prompt's tokens over a grid of native-size regions, with positions of their own."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.schedule not in get_args(Schedule):
            raise ValueError(
                f"schedule is {self.schedule!r}: expected one of {', '.join(get_args(Schedule))}"
            )
        if not 0 <= self.weight <= 1:
            raise ValueError(f"weight is {self.weight}: expected a factor in [0, 1]")
        if not (isinstance(self.low_pass_level, int) and self.low_pass_level >= 0):
            raise ValueError(
                f"low_pass_level is {self.low_pass_level!r}: expected a whole number of 0 or more"
            )
        if self.shift != "policy" and not (isinstance(self.shift, (int, float)) and self.shift > 0):
            raise ValueError(f"shift is {self.shift!r}: expected a number above 0, or 'policy'")

    def policy(self, policy: ResolutionPolicy | None) -> ResolutionPolicy | None:
        """The given policy with this method's shift; without a policy, only the shift."""
        if self.shift == "policy":
            return policy
        return replace(policy or ResolutionPolicy(exact_ids=False), shift=float(self.shift))

    def check(self, pipe: Any, size: Size) -> None:
        with guided(pipe, torch.zeros(1, 1, *family_of(pipe).latents.shape(pipe, size)), self, size=size):
            pass

    def draw(self, pipe: Any, request: Request, *, on_step: Callable[[], None]) -> Image.Image:
        """Fresh noise to an image at the target size, along `request.native`."""
        guide = encoded(pipe, upscaled(request))
        with guided(pipe, guide, self, size=request.size):
            return draw(pipe, request, on_step)


@contextmanager
def guided(pipe: Any, guide: Tensor, options: Imax, *, size: Size) -> Iterator[None]:
    """Run a stock text-to-image pipeline along a guide, normalised clean latents (1 or B, C, H, W).

    The pipeline is to be called at `size`, the guide's (width, height) in pixels, for one or more images. All is undone
    on exit.
    """

    def correction(step: Step) -> Tensor:
        offset = int(options.shifted_patches and is_shifted(step.index))
        return corrected(step, guide.to(step.noisy), options, offset=offset)

    with ExitStack() as stack:
        scheduler = stack.enter_context(velocity_corrected(pipe, correction, size=size))
        if options.shifted_patches:
            stack.enter_context(patches_shifted(pipe, scheduler, size=size))
        if options.repeat_text:
            stack.enter_context(_text_repeated(pipe, size))
        yield


def corrected(step: Step, guide: Tensor, options: Imax, *, offset: int = 0) -> Tensor:
    """v + w (the schedule's part of v_ref - v), with v_ref = (noisy - guide) / sigma; (B, C, H, W)."""
    pull = (step.noisy - guide) / step.sigma - step.velocity
    smooth = low_pass(pull, level=options.low_pass_level, offset=offset)
    c = (1 + math.cos(math.pi * step.index / step.num_steps)) / 2
    parts = {
        "cosine_decay": c * smooth,
        "constant": smooth,
        "cosine_shift": c * pull + (1 - c) * smooth,
    }
    return step.velocity + options.weight * parts[options.schedule]


@contextmanager
def _text_repeated(pipe: Any, size: Size) -> Iterator[None]:
    """The prompt once for each native-size region, its tokens placed at the region's first image token."""
    calls, grid = family_of(pipe).calls, native_size(pipe) // pixels_per_token(pipe)
    columns, rows = (max(1, side // native_size(pipe)) for side in size)
    places = [(grid * row, grid * column) for row in range(rows) for column in range(columns)]
    if len(places) == 1:
        raise ValueError(
            f"repeat_text has no effect at {size[0]}x{size[1]}, which holds one region of native size: leave it out"
        )

    def repeated(inputs: dict[str, Any]) -> dict[str, Any]:
        return calls.with_text_at(inputs, places)

    with inputs_changed(pipe.transformer, repeated, what="repeat_text"):
        yield

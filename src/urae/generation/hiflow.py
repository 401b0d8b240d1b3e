"""HiFlow: a second pass from the noised guide, held to the path of the native pass in three ways.

Initialisation: it starts, as SDEdit does, from the upscaled and sharpened native picture with noise up to a start
sigma. Direction: the low frequencies of the clean image that each step predicts are drawn towards those of the native
pass at the same noise level, upscaled. Acceleration: the velocity changes from step to step as the velocity towards
that image does. Both pulls fade linearly over the steps.

The published code runs both passes on the same noise levels; here each has its own, and the native path is read between
its levels. It draws the blur that sharpens at random; here it has the mean width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import torch
import torch.nn.functional as F
from PIL import Image, ImageFilter
from torch import Tensor

from urae.families import family_of
from urae.generation.direct import draw, generator_of
from urae.generation.guide import Step, smooth, velocity_corrected
from urae.generation.native import TwoPass, encoded, upscaled
from urae.generation.patches import patches_shifted
from urae.generation.path import NativePath
from urae.generation.request import Request
from urae.generation.sdedit import check_start_sigma, describe_start, sigmas_from
from urae.resolution import Size

__all__ = ["Hiflow", "Reference", "aligned", "corrected", "sharpened"]

Reference = Literal["path", "picture"]
"""What the second pass is drawn towards: the native pass's prediction at each noise level, or its picture at all."""

BLUR = 1.05
"""Standard deviation, in pixels, of the blur that sharpening undoes: the mean of the published 0.1 to 2."""


@dataclass(frozen=True, kw_only=True)
class Hiflow(TwoPass):
    """Options of HiFlow; the defaults are its authors' for twice the native size, but for their shifted patches.

    For four times they take 10 steps, start sigma 0.612, direction 0.25 and guidance 6, from the picture of twice the
    size.
    """

    name: ClassVar[str] = "hiflow"
    steps: ClassVar[int] = 16
    guidance: ClassVar[float] = 4.5

    start_sigma: float = 0.783
    """Noise level in (0, 1] to which the upscaled picture is taken back; at 1 nothing of it is left."""
    direction: float = 1.0
    """Weight in [0, 1] of the low frequencies' pull at the first step."""
    acceleration: float = 0.5
    """Weight in [0, 1] at the first step of the pull towards the native pass's change of velocity."""
    cutoff: float = 0.2
    """Where low frequencies end, as a share of the highest; above 0."""
    sharpen: float = 1.0
    """How often the difference to a slight blur is added to the upscaled picture; 0 leaves it as it is."""
    reference: Reference = "path"
    """path: what the native pass predicts at each noise level; picture: its picture, which may then be given."""
    shifted_patches: bool = False
    """Let every other step, from the first, cut the latents into tokens half a token further."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_start_sigma(self.start_sigma)
        for name in ("direction", "acceleration"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}: expected a weight in [0, 1]")
        if not self.cutoff > 0:
            raise ValueError(
                f"cutoff is {self.cutoff}: expected a share of the highest frequency above 0, such as 0.2"
            )
        if not self.sharpen >= 0:
            raise ValueError(f"sharpen is {self.sharpen}: expected a number of 0 or more")
        if self.reference not in get_args(Reference):
            raise ValueError(
                f"reference is {self.reference!r}: expected one of {', '.join(get_args(Reference))}"
            )

    @property
    def needs_path(self) -> bool:
        """True unless the picture alone is followed."""
        return self.reference == "path"

    def check(self, pipe: Any, size: Size) -> None:
        height, width = family_of(pipe).latents.shape(pipe, size)
        nothing = NativePath(clean=torch.zeros(1, 1, 1, height, width), sigmas=torch.ones(1))
        with aligned(pipe, nothing, self, size=size):
            pass

    def describe(self, *, steps: int, shift: float) -> str:
        """The start sigma in the terms of stock diffusers, for `steps` steps under a timestep shift."""
        return describe_start(self.start_sigma, steps=steps, shift=shift)

    def draw(self, pipe: Any, request: Request, *, on_step: Callable[[], None]) -> Image.Image:
        """The noised guide to an image at the target size, along `request.native`."""
        picture = upscaled(request)
        guide = encoded(pipe, sharpened(picture, amount=self.sharpen))
        if self.reference == "path":
            assert request.native_path is not None
            path = request.native_path.to(guide.device)
        else:
            path = NativePath(clean=encoded(pipe, picture)[None], sigmas=torch.ones(1, device=guide.device))
        generator = generator_of(request)
        with aligned(pipe, path, self, size=request.size):
            return draw(
                pipe,
                request,
                on_step,
                generator=generator,
                latents=noised(pipe, guide, request.size, sigma=self.start_sigma, generator=generator),
                sigmas=sigmas_from(pipe, request, self.start_sigma),
            )


@contextmanager
def aligned(pipe: Any, path: NativePath, options: Hiflow, *, size: Size) -> Iterator[None]:
    """Run a stock text-to-image pipeline at `size` (width, height, pixels), held to the path of a native pass.

    All is undone on exit.
    """
    height, width = family_of(pipe).latents.shape(pipe, size)
    before: tuple[Tensor, Tensor] | None = None

    def correction(step: Step) -> Tensor:
        nonlocal before
        clean = F.interpolate(path.at(step.sigma), size=(height, width), mode="bicubic")
        reference = (step.noisy - clean) / step.sigma
        velocity = corrected(step, reference, before if step.index else None, options)
        before = velocity, reference
        return velocity

    with ExitStack() as stack:
        scheduler = stack.enter_context(velocity_corrected(pipe, correction, size=size))
        if options.shifted_patches:
            stack.enter_context(patches_shifted(pipe, scheduler, size=size))
        yield


def corrected(step: Step, reference: Tensor, before: tuple[Tensor, Tensor] | None, options: Hiflow) -> Tensor:
    """The velocity with direction and acceleration aligned to a reference velocity, all (B, C, H, W).

    Direction: v + a (n - i) / n P(v_ref - v), which gives the predicted clean image the reference's low frequencies.
    Acceleration: then towards v_before + v_ref - v_ref_before by b (n - i) / n. `before`: what the step before took,
    and its reference; None at the first.
    """
    fade = 1 - step.index / step.num_steps
    pull = smooth(reference - step.velocity, cutoff=options.cutoff)
    velocity = step.velocity + options.direction * fade * pull
    if before is None:
        return velocity
    return torch.lerp(velocity, before[0] + reference - before[1], options.acceleration * fade)


def sharpened(picture: Image.Image, *, amount: float) -> Image.Image:
    """The picture plus `amount` times its difference to a 3 x 3 Gaussian blur; its outermost pixels stay."""
    line = [math.exp(-((place / BLUR) ** 2) / 2) for place in (-1, 0, 1)]
    blur = [row * column / sum(line) ** 2 for row in line for column in line]
    kernel = [(1 + amount) * (place == 4) - amount * weight for place, weight in enumerate(blur)]
    return picture.filter(ImageFilter.Kernel((3, 3), kernel, scale=1))


def noised(pipe: Any, clean: Tensor, size: Size, *, sigma: float, generator: torch.Generator) -> Tensor:
    """(1 - sigma) clean + sigma noise, packed, from the noise that the pipeline itself would start with."""
    latents = family_of(pipe).latents
    noise = latents.noise(pipe, size, generator, num=len(clean))
    return ((1 - sigma) * latents.pack(clean) + sigma * noise.float()).to(noise.dtype)

"""The first pass of the two-pass methods: a picture at native size, made by stock behaviour, kept and reused.

It is the picture that `generate` makes at that size without adapter and policy, so that methods and adapters can
be compared on the same one. Kept pictures are PNGs in a folder of the user's; a file's name is a hash of all
that the picture depends on, so a picture of another model or setting is never taken for it. Beside it lies the path on
which the pass came to it, where a method has asked for that.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from urae.adapters.base import base_of
from urae.errors import BadFile
from urae.execution import stored_as
from urae.families import family_of
from urae.generation.direct import Direct
from urae.generation.guide import Step, steps_watched
from urae.generation.path import NativePath
from urae.generation.request import Request
from urae.io import read_picture
from urae.provenance import save_png, versions
from urae.resolution import ResolutionPolicy, Size, native_size, pixels_per_token

__all__ = [
    "Native",
    "Natives",
    "TwoPass",
    "check_shape",
    "encoded",
    "native_pass",
    "native_picture_size",
    "picture_hash",
    "upscaled",
]

logger = logging.getLogger(__name__)

MAX_STRETCH = 0.05
"""Largest difference in aspect ratio, as a share, that upscaling may even out."""


@dataclass(frozen=True, kw_only=True)
class TwoPass:
    """How the native picture is made; the options that every two-pass method has.

    The defaults are those of the direct method, so that all methods share their native pictures.
    """

    name: ClassVar[str]
    steps: ClassVar[int]
    guidance: ClassVar[float]

    native_steps: int = 28
    """Denoising steps of the native pass."""
    native_guidance: float | Literal["auto"] = "auto"
    """Guidance scale of the native pass; auto: the direct method's."""
    native_policy: ResolutionPolicy | Literal["none"] = "none"
    """Policy of the native pass, its timestep shift included; "none" is stock behaviour."""

    def __post_init__(self) -> None:
        if not (isinstance(self.native_steps, int) and self.native_steps >= 1):
            raise ValueError(f"native_steps is {self.native_steps!r}: expected a whole number of 1 or more")
        scale = self.native_guidance
        if scale != "auto" and not (math.isfinite(scale) and scale >= 0):
            raise ValueError(f"native_guidance is {self.native_guidance}: expected a number of 0 or more")
        if self.native_policy != "none" and not isinstance(self.native_policy, ResolutionPolicy):
            raise ValueError(
                f"native_policy is {self.native_policy!r}: expected a ResolutionPolicy or 'none'"
            )

    @property
    def needs_path(self) -> bool:
        """Whether the second pass asks how the native pass came to its picture, which a picture alone cannot tell."""
        return False

    def policy(self, policy: ResolutionPolicy | None) -> ResolutionPolicy | None:
        """The policy of the second pass, given the one that a direct image would have."""
        return policy

    def check(self, pipe: Any, size: Size) -> None:
        """Raise ValueError, before anything is computed, for options that this pipeline cannot follow at `size`."""

    def native_settings(self, request: Request, size: Size) -> dict[str, Any]:
        """What `generate` is to be asked for the native picture of a request, of `size`."""
        # Without guidance there is nothing that a negative prompt could turn away.
        guided = self.native_guidance != "auto" and self.native_guidance > 1
        return {
            "prompt": request.prompt,
            "size": size,
            "policy": self.native_policy,
            "seed": request.seed,
            "steps": self.native_steps,
            "guidance": self.native_guidance,
            **({"negative": request.negative} if request.negative and guided else {}),
        }

    def describe(self, *, steps: int, shift: float) -> str:
        """What to tell the user about a run of `steps` steps under a timestep shift; empty if nothing."""
        return ""


@dataclass(frozen=True, kw_only=True)
class Native:
    """What a native pass gives."""

    picture: Image.Image
    path: NativePath | None = None
    """None where nobody asked for it."""


def native_pass(make: Callable[..., Any], settings: Mapping[str, Any], *, with_path: bool) -> Native:
    """The native picture that `make` (`generate` with a pipeline) draws with these settings, and its path if asked."""
    if not with_path:
        return Native(picture=make(**settings))
    method = _Recorded()
    picture = make(**settings, method=method)
    return Native(picture=picture, path=method.path)


@dataclass(frozen=True, kw_only=True)
class _Recorded(Direct):
    """The direct method, which gives the same pixels and keeps how it came to them."""

    steps_taken: list[tuple[Tensor, Tensor]] = field(default_factory=list, init=False)
    """The predicted clean latents (B, C, H, W) and the noise level of each step, on the CPU."""

    def draw(self, pipe: Any, request: Request, *, on_step: Callable[[], None]) -> Image.Image:
        """As in the base class."""

        def watch(step: Step) -> None:
            clean = step.noisy - step.sigma * step.velocity
            self.steps_taken.append((clean.cpu(), step.sigma.cpu()))

        with steps_watched(pipe, watch, size=request.size):
            return super().draw(pipe, request, on_step=on_step)

    @property
    def path(self) -> NativePath:
        """All steps that were taken."""
        clean, sigmas = zip(*self.steps_taken, strict=True)
        return NativePath(clean=torch.stack(clean), sigmas=torch.stack(sigmas))


def native_picture_size(pipe: Any, size: Size) -> Size:
    """(width, height) of the native picture of an image of `size`: about the native area, and its shape.

    Among sizes of 80% to 125% of the native area, the one whose aspect ratio is nearest, then whose area is.
    Raises ValueError if there is none, and if `size` is not above the native size.
    """
    width, height = size
    area = native_size(pipe) ** 2
    if width * height <= area:
        raise ValueError(
            f"size {width}x{height} is not above the model's native {native_size(pipe)}x{native_size(pipe)}: "
            "use the direct method, or a larger size"
        )
    token = pixels_per_token(pipe)
    sides = range(token, max(size) + 1, token)
    sizes = [(w, h) for w in sides for h in sides if 0.8 <= w * h / area <= 1.25]
    stretch, _, best = min((_stretch(one, size), abs(math.log(one[0] * one[1] / area)), one) for one in sizes)
    if stretch > MAX_STRETCH:
        raise ValueError(
            f"size {width}x{height} has no native picture of its shape, the nearest is {best[0]}x{best[1]}: "
            "use the direct method, or a less extreme size"
        )
    return best


def upscaled(request: Request) -> Image.Image:
    """The request's native picture at the target size, by bicubic interpolation of its pixels."""
    assert request.native is not None
    return request.native.convert("RGB").resize(request.size, Image.Resampling.BICUBIC)


@torch.no_grad()
def encoded(pipe: Any, picture: Image.Image) -> Tensor:
    """Normalised clean latents (1, C, H, W) of a picture: the mean of the VAE's posterior, fp32.

    The published code draws from the posterior, which is narrow; its noise would be that of the second pass.
    """
    values = torch.from_numpy(np.asarray(picture, dtype=np.float32) / 127.5 - 1)
    posterior = family_of(pipe).latents.encode(pipe, values.permute(2, 0, 1)[None])
    return posterior.mean.to(pipe._execution_device)


def check_shape(picture: Image.Image, size: Size) -> Image.Image:
    """Return a given native picture if upscaling it to `size` does not distort it."""
    if _stretch(picture.size, size) > MAX_STRETCH:
        raise ValueError(
            f"the native picture is {picture.width}x{picture.height}, of another shape than "
            f"{size[0]}x{size[1]}: crop it first"
        )
    return picture


def picture_hash(picture: Image.Image) -> str:
    """SHA-256 of a picture's size and pixels."""
    pixels = picture.convert("RGB")
    return hashlib.sha256(f"{pixels.size}".encode() + pixels.tobytes()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Natives:
    """Native pictures in a folder, each under a hash of all that it depends on."""

    folder: Path
    model: str
    """Identity of the model's transformer, and how its weights are stored."""

    @classmethod
    def of(cls, pipe: Any, folder: str | Path) -> Natives:
        """The pictures of this model. Its weights have to be in their place: call it before offloading."""
        if getattr(pipe.transformer, "_hf_peft_config_loaded", False):
            raise ValueError(
                "native pictures cannot be kept while an adapter is attached by hand: give it as adapter"
            )
        base = base_of(pipe.transformer)
        model = f"{base.config} {base.weights} {pipe.transformer.dtype} {stored_as(pipe)}"
        return cls(folder=Path(folder), model=model)

    def find(self, settings: Mapping[str, Any], *, with_path: bool) -> Native | None:
        """What is kept of the pass that `generate` makes with these settings, if all is there, and whole, that is asked
        for."""
        picture, path = self._files(settings)
        if not picture.is_file() or (with_path and not path.is_file()):
            return None
        try:
            return Native(picture=read_picture(picture), path=NativePath.load(path) if with_path else None)
        except BadFile as error:
            logger.warning("made again, because %s", error)
            return None

    def keep(self, settings: Mapping[str, Any], native: Native) -> None:
        """Write the picture, and its path if it has one."""
        picture, path = self._files(settings)
        save_png(native.picture, picture)
        if native.path:
            native.path.save(path)

    def _files(self, settings: Mapping[str, Any]) -> tuple[Path, Path]:
        known = {"model": self.model, "versions": versions(), **settings}
        text = json.dumps(known, sort_keys=True, default=ResolutionPolicy.to_dict)
        name = f"native-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
        return self.folder / f"{name}.png", self.folder / f"{name}.safetensors"


def _stretch(one: Size, other: Size) -> float:
    """How far two aspect ratios are apart: 0.05 is five percent."""
    return abs(math.log(one[0] * other[1] / (one[1] * other[0])))

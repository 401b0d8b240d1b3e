"""One image to make, in the words that every generation method understands."""

from __future__ import annotations

import math
from dataclasses import dataclass

from PIL import Image

from urae.generation.path import NativePath
from urae.resolution import Size, check_size

__all__ = ["Request"]


@dataclass(frozen=True, kw_only=True)
class Request:
    """A prompt and everything else that decides the pixels, apart from model, adapter and policy.

    Raises ValueError for a value out of range.
    """

    prompt: str
    size: Size
    """(width, height) in pixels, multiples of 16."""
    seed: int
    """Of the image's own generator, on the CPU: neither the device nor other images change its noise."""
    steps: int
    """Denoising steps at this size; 0 for a method that does not denoise there."""
    guidance: float
    """Guidance scale; 1 is none."""
    negative: str = ""
    """What guidance leads away from; empty for a model that takes none."""
    native: Image.Image | None = None
    """The picture at native size that a two-pass method starts from; None for a method of one pass."""
    mask: Image.Image | None = None
    """White where something may change, of `size`; None for everywhere. Only where the family redraws within one."""
    native_file: str = ""
    """Its file's name, or "given", where it was given and not drawn."""
    native_path: NativePath | None = None
    """How the native pass came to that picture; None where the method does not ask for it."""

    def __post_init__(self) -> None:
        check_size(self.size)
        if not isinstance(self.prompt, str):
            raise ValueError(f"prompt is {self.prompt!r}: expected a string")
        if not isinstance(self.seed, int) or not -(2**63) <= self.seed < 2**64:
            raise ValueError(f"seed is {self.seed!r}: expected a whole number of at most 64 bits")
        if not (math.isfinite(self.guidance) and self.guidance >= 0):
            raise ValueError(f"guidance is {self.guidance}: expected a number of 0 or more, such as 3.5")

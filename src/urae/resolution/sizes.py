"""Sizes in pixels, and the tokens they become.

A size is always ``(width, height)`` in pixels; an int stands for a square. Both sides are multiples of an image token's
side, which is the model's. Nothing here changes a size without saying so: `check_size` refuses, `snap` returns what it
did.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from urae.families.family import SIDE, Size
from urae.families.registry import family_of

__all__ = [
    "SIDE",
    "Size",
    "Snapped",
    "check_size",
    "native_size",
    "num_image_tokens",
    "num_tokens",
    "pixels_per_token",
    "size_named",
    "size_scale",
    "snap",
    "text_tokens",
]


def native_size(pipe: Any) -> int:
    """Side in pixels of the images that the model was trained on: 1024 for FLUX.1, 128 for the miniature."""
    return family_of(pipe).latents.native_size(pipe)


def pixels_per_token(pipe: Any) -> int:
    """Side of an image token in pixels: 16 for FLUX.1."""
    return family_of(pipe).latents.pixels_per_token(pipe)


def text_tokens(pipe: Any) -> int:
    """Text tokens that the model attends to beside the image: 512 for FLUX.1-dev, 32 for the miniature."""
    return family_of(pipe).text.num_tokens(pipe)


def num_image_tokens(pipe: Any, size: int | Sequence[int]) -> int:
    """Image tokens of a size in pixels: for FLUX.1 4096 at (1024, 1024), 65536 at (4096, 4096)."""
    side = pixels_per_token(pipe)
    width, height = check_size(size, multiple=side)
    return (width // side) * (height // side)


def num_tokens(pipe: Any, size: int | Sequence[int]) -> int:
    """Text and image tokens of a size in pixels."""
    return num_image_tokens(pipe, size) + text_tokens(pipe)


def size_scale(pipe: Any, size: int | Sequence[int]) -> float:
    """How much larger than native a size is: the geometric mean of its sides over the native side."""
    width, height = check_size(size, multiple=pixels_per_token(pipe))
    return math.sqrt(width * height) / native_size(pipe)


def check_size(size: int | Sequence[int], *, multiple: int = SIDE) -> Size:
    """Return `size` as (width, height) if a model can make it whose tokens have sides of `multiple` pixels.

    Raises ValueError, with the nearest valid sizes, unless both sides are positive multiples.
    """
    width, height = _sides(size)
    if width % multiple or height % multiple:
        below, above = (_to_multiple((width, height), multiple, r) for r in (math.floor, math.ceil))
        raise ValueError(
            f"size {width}x{height} has a side that is not a multiple of {multiple}: "
            f"use {below[0]}x{below[1]} or {above[0]}x{above[1]}"
        )
    return width, height


def size_named(size: str | int | Sequence[int]) -> Size:
    """(width, height) of "WIDTHxHEIGHT", of a pair, or of the side of a square. ValueError for anything else."""
    if not isinstance(size, str):
        return _sides(size)
    sides = re.fullmatch(r"(\d{1,9})x(\d{1,9})", size)
    if not sides:
        raise ValueError(f"size is {size!r}: expected WIDTHxHEIGHT in pixels, such as 256x256")
    return _sides((int(sides[1]), int(sides[2])))


@dataclass(frozen=True, kw_only=True)
class Snapped:
    """A size moved to the nearest valid one, and what it was before."""

    asked: Size
    """The size that was given, pixels."""
    size: Size
    """The nearest size whose sides are multiples, pixels."""

    @property
    def change(self) -> str:
        """What was changed, as a phrase to print; empty if nothing was."""
        if self.size == self.asked:
            return ""
        return f"{self.asked[0]}x{self.asked[1]} became {self.size[0]}x{self.size[1]}"


def snap(size: int | Sequence[int], *, multiple: int = SIDE) -> Snapped:
    """Round both sides to the nearest `multiple` (at least one); `.change` says what that did."""
    if multiple < 1 or multiple % SIDE:
        raise ValueError(f"multiple is {multiple}: expected a positive multiple of {SIDE}")
    asked = _sides(size)
    return Snapped(asked=asked, size=_to_multiple(asked, multiple, _round_half_up))


def _sides(size: int | Sequence[int]) -> Size:
    sides = (size, size) if isinstance(size, int) else tuple(size)
    if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):
        raise ValueError(f"size is {size!r}: expected (width, height) in pixels, such as (512, 512)")
    return sides[0], sides[1]


def _to_multiple(size: Size, multiple: int, rounding: Callable[[float], int]) -> Size:
    width, height = (max(1, rounding(side / multiple)) * multiple for side in size)
    return width, height


def _round_half_up(value: float) -> int:
    # Python's round() goes to the even neighbour, which would send 24 down to 16 and 40 up to 48.
    return math.floor(value + 0.5)

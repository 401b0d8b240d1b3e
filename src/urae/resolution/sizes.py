"""Sizes in pixels, and the tokens they become.

A size is always ``(width, height)`` in pixels. One image token is a patch of 2 x 2 latents of 8 x 8 pixels
each, so both sides are multiples of 16; an int stands for a square. Nothing here changes a size without
saying so: `check_size` refuses, `snap` returns what it did.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

__all__ = [
    "PIXELS_PER_TOKEN",
    "Pipeline",
    "Size",
    "Snapped",
    "check_size",
    "native_size",
    "num_image_tokens",
    "size_scale",
    "snap",
    "text_tokens",
]

Size = tuple[int, int]
"""(width, height) in pixels."""

PIXELS_PER_TOKEN = 16
"""Side of an image token in pixels: the VAE's 8 times the transformer's patch of 2."""


class Pipeline(Protocol):
    """What this room needs of a stock FLUX pipeline, text-to-image or image-to-image."""

    transformer: Any
    scheduler: Any
    vae: Any
    tokenizer_2: Any


def native_size(pipe: Pipeline) -> int:
    """Side in pixels of the images that the model was trained on: 1024 for FLUX.1, 128 for the miniature."""
    return int(pipe.vae.config.sample_size)


def text_tokens(pipe: Pipeline) -> int:
    """Text tokens that the model attends to beside the image: 512 for FLUX.1-dev, 32 for the miniature."""
    if pipe.tokenizer_2 is None:
        raise ValueError(
            "the pipeline has no tokenizer_2, which tells the number of text tokens: load it with one"
        )
    return int(pipe.tokenizer_2.model_max_length)


def num_image_tokens(size: int | Sequence[int]) -> int:
    """Image tokens of a size in pixels: 4096 at (1024, 1024), 65536 at (4096, 4096)."""
    width, height = check_size(size)
    return (width // PIXELS_PER_TOKEN) * (height // PIXELS_PER_TOKEN)


def size_scale(pipe: Pipeline, size: int | Sequence[int]) -> float:
    """How much larger than native a size is: the geometric mean of its sides over the native side."""
    width, height = check_size(size)
    return math.sqrt(width * height) / native_size(pipe)


def check_size(size: int | Sequence[int]) -> Size:
    """Return `size` as (width, height) if a model can make it.

    Raises ValueError, with the nearest valid sizes, unless both sides are positive multiples of 16.
    """
    width, height = _sides(size)
    if width % PIXELS_PER_TOKEN or height % PIXELS_PER_TOKEN:
        below, above = (_to_multiple((width, height), PIXELS_PER_TOKEN, r) for r in (math.floor, math.ceil))
        raise ValueError(
            f"size {width}x{height} has a side that is not a multiple of {PIXELS_PER_TOKEN}: "
            f"use {below[0]}x{below[1]} or {above[0]}x{above[1]}"
        )
    return width, height


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


def snap(size: int | Sequence[int], *, multiple: int = PIXELS_PER_TOKEN) -> Snapped:
    """Round both sides to the nearest `multiple` (at least one); `.change` says what that did."""
    if multiple < 1 or multiple % PIXELS_PER_TOKEN:
        raise ValueError(f"multiple is {multiple}: expected a positive multiple of {PIXELS_PER_TOKEN}")
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

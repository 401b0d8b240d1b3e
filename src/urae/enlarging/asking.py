"""What is asked of an enlargement: the fields are also the options of `urae enlarge`. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from urae.resolution import Size, size_named

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["LEVELS", "EnlargeRequest"]

LEVELS = {"little": 0.3, "some": 0.5, "much": 0.7}
"""How much may change, by name. The number is the share of noise that the enlarged picture is taken back to."""


@dataclass(frozen=True, kw_only=True)
class EnlargeRequest:
    """A picture to be enlarged. ValueError for a value out of range and for a setting without an effect."""

    picture: Path | str | Image
    """The picture: any shape, any size below the one that is asked for."""
    scale: float | None = None
    """How many times larger a side becomes, above 1."""
    size: str | Sequence[int] | None = None
    """WIDTHxHEIGHT in pixels instead of a scale; any numbers."""
    crop: bool = False
    """Cut off what a size of another shape than the picture's leaves over; without it such a size is refused."""
    change: float | Literal["little", "some", "much"] = "some"
    """How much may change: a number above 0 and up to 1, where 1 keeps the layout alone."""
    prompt: str = ""
    """What the picture shows; without one the model has only the picture to go by."""
    tiles: bool = False
    """Let the model see windows of its native size instead of the whole: sharper, and things may come twice."""
    mask: Path | str | Image | None = None
    """Picture of the same size or shape that is white where something may change; the rest is enlarged plainly."""

    def __post_init__(self) -> None:
        if (self.scale is None) == (self.size is None):
            raise ValueError(
                "the size is given twice or not at all: give either a scale, such as 2, or a size, such as 2048x2048"
            )
        if self.scale is not None and not 1 < self.scale <= 64:
            raise ValueError(f"scale is {self.scale}: expected a number above 1 and up to 64, such as 2")
        if self.crop and self.size is None:
            raise ValueError("crop has no effect with a scale, which keeps the shape: leave it out")
        if not 0 < self.amount <= 1:
            raise ValueError(
                f"change is {self.change}: expected above 0 and up to 1, or one of {', '.join(LEVELS)}"
            )
        if self.tiles and self.amount == 1:
            raise ValueError(
                "tiles at a change of 1 would each draw a picture of their own: give a smaller "
                "change, or leave tiles out"
            )
        if self.mask is not None and self.amount == 1:
            raise ValueError("a mask needs a change below 1, so that the region still depends on its picture")

    @property
    def amount(self) -> float:
        """`change` as a number; NaN for a word that is none."""
        if isinstance(self.change, str):
            return LEVELS.get(self.change, float("nan"))
        return float(self.change)

    @property
    def sides(self) -> Size | None:
        """`size` in numbers."""
        return None if self.size is None else size_named(self.size)

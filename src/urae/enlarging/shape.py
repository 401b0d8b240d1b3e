"""From one picture size to another without stretching: enlarged by one factor, cut and padded where that must be.

A model takes sides of certain multiples. The enlarged picture is padded to the next ones by its mirrored border, and
what the model makes of the border is cut off again, so that every size can be asked for to the pixel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from urae.resolution import Size

__all__ = ["Fit", "fitted"]

HALF = 0.5
"""Of a pixel, which rounding may cost."""


@dataclass(frozen=True, kw_only=True)
class Fit:
    """How a picture comes to its size; all sizes are (width, height) in pixels."""

    source: Size
    size: Size
    scale: float
    """Of both sides alike."""
    drawn: Size
    """What the model draws."""

    def __str__(self) -> str:
        text = f"size: {_said(self.source)} to {_said(self.size)}, {self.scale:.4g} times"
        cut = [int(full) - side for full, side in zip(self._full, self.size, strict=True)]
        if any(cut):
            text += f"; cut to the shape: {cut[0]} columns and {cut[1]} rows, half on each side"
        added = [one - side for one, side in zip(self.drawn, self.size, strict=True)]
        if any(added):
            text += (
                f"; drawn at {_said(self.drawn)}, with {added[0]} columns and {added[1]} rows of mirrored border that "
                "are cut off again"
            )
        return text

    def enlarged(self, picture: Image.Image) -> Image.Image:
        """The picture at `size` by bicubic interpolation, cut to its shape."""
        half = [(full - side) / 2 / self.scale for full, side in zip(self._full, self.size, strict=True)]
        (left, top), (width, height) = half, self.source
        box = (
            left,
            top,
            min(width, left + self.size[0] / self.scale),
            min(height, top + self.size[1] / self.scale),
        )
        return picture.resize(self.size, Image.Resampling.BICUBIC, box=box)

    def padded(self, enlarged: Image.Image) -> Image.Image:
        """The enlarged picture at the size that is drawn."""
        (left, top), (width, height) = self._corner, self.drawn
        right, bottom = width - left - self.size[0], height - top - self.size[1]
        pixels = np.asarray(enlarged)
        sides = ((top, bottom), (left, right), *([(0, 0)] * (pixels.ndim - 2)))
        return Image.fromarray(np.pad(pixels, sides, mode="symmetric"))

    def cropped(self, drawn: Image.Image) -> Image.Image:
        """What was drawn, without the border."""
        left, top = self._corner
        return drawn.crop((left, top, left + self.size[0], top + self.size[1]))

    @property
    def _full(self) -> tuple[float, float]:
        width, height = self.source
        return width * self.scale, height * self.scale

    @property
    def _corner(self) -> tuple[int, int]:
        width, height = (one - side for one, side in zip(self.drawn, self.size, strict=True))
        return width // 2, height // 2


def fitted(source: Size, *, scale: float | None, size: Size | None, crop: bool, multiple: int) -> Fit:
    """How a picture of size `source` is enlarged by a scale, or to a size, with a model whose sides are multiples.

    ValueError for a size that is no larger, and for one of another shape unless it may be cropped.
    """
    width, height = source
    if size is None:
        assert scale is not None
        size = math.floor(width * scale + 1e-6), math.floor(height * scale + 1e-6)
    else:
        # A side that rounding has shortened by less than half a pixel is not to be filled by a larger factor.
        scale = max(size[0] / width, size[1] / height)
        _check_shape(source, size, scale, crop)
    if scale <= 1:
        raise ValueError(
            f"{_said(size)} is no larger than the picture, which is {_said(source)}: give a larger size"
        )
    drawn = math.ceil(size[0] / multiple) * multiple, math.ceil(size[1] / multiple) * multiple
    return Fit(source=source, size=size, scale=scale, drawn=drawn)


def _check_shape(source: Size, size: Size, scale: float, crop: bool) -> None:
    full = [side * scale for side in source]
    differs = any(one - side > HALF + 1e-6 for one, side in zip(full, size, strict=True))
    if differs and not crop:
        first = size[0], round(source[1] * size[0] / source[0])
        second = round(source[0] * size[1] / source[1]), size[1]
        raise ValueError(
            f"{_said(size)} is of another shape than the picture, which is {_said(source)}: take {_said(first)} or "
            f"{_said(second)}, or let the rest be cut off with --crop"
        )
    if crop and not differs:
        raise ValueError(f"crop has no effect, as {_said(size)} is of the picture's shape: leave it out")


def _said(size: Size) -> str:
    return f"{size[0]}x{size[1]}"

"""Aspect-ratio buckets: the sizes of about one area in which images of all shapes are trained.

Every bucket holds nearly the same number of pixels, so a batch costs the same whatever its shape.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from urae.families.family import SIDE, Size

__all__ = ["buckets", "nearest_bucket"]


def buckets(
    side: int,
    *,
    multiple: int = SIDE,
    tolerance: float = 0.05,
    max_ratio: float = 2.0,
) -> list[Size]:
    """Sizes (width, height) whose area is within `tolerance` (a share) of `side` squared.

    Both sides are multiples of `multiple` (itself a multiple of `SIDE`), and neither is more than `max_ratio`
    times the other. Sorted from the tallest to the widest; mirrored sizes are both there.
    """
    _check(side, multiple, tolerance, max_ratio)
    area = side * side
    # One width to each height, the closest in area; shapes that differ in the long side alone are too alike.
    wide = [(round(area / height / multiple) * multiple, height) for height in range(side, 0, -multiple)]
    wide = [
        (width, height)
        for width, height in wide
        if abs(width * height / area - 1) <= tolerance and width / height <= max_ratio
    ]
    tall = [(height, width) for width, height in wide if width != height]
    return [*reversed(tall), *wide]


def nearest_bucket(size: Sequence[int], choices: Sequence[Size]) -> Size:
    """The bucket whose shape is closest to an image of `size` (width, height), by the ratio of aspect ratios.

    Any positive size will do: the image is to be scaled and cropped to the bucket.
    """
    width, height = size
    if width < 1 or height < 1:
        raise ValueError(f"size is {tuple(size)}: expected a positive width and height in pixels")
    if not choices:
        raise ValueError("there are no buckets to choose from: give at least one (width, height)")
    return min(choices, key=lambda bucket: abs(math.log(width / height * bucket[1] / bucket[0])))


def _check(side: int, multiple: int, tolerance: float, max_ratio: float) -> None:
    if multiple < 1 or multiple % SIDE:
        raise ValueError(f"multiple is {multiple}: expected a positive multiple of {SIDE}")
    if side < 1 or side % multiple:
        raise ValueError(f"side is {side}: expected a positive multiple of {multiple}, so that a square fits")
    if not 0 <= tolerance < 1:
        raise ValueError(f"tolerance is {tolerance}: expected a share of the area in [0, 1), such as 0.05")
    if max_ratio < 1:
        raise ValueError(f"max_ratio is {max_ratio}: expected the longest side over the shortest, 1 or more")

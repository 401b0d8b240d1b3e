"""Native crops: the same places of every picture of a size, by chance but always the same, and never resized."""

from __future__ import annotations

import numpy as np
from PIL import Image

__all__ = ["INCEPTION_SIDE", "MINI_SIDE", "native_crops"]

INCEPTION_SIDE = 299
"""Pixels of what the FID Inception sees."""
MINI_SIDE = 64
"""Pixels of a native crop, and of the reduced picture, that the miniature's recogniser sees."""


def native_crops(image: Image.Image, *, side: int, num: int) -> list[Image.Image]:
    """`num` crops of `side` x `side` px at places that depend on the picture's size alone."""
    if min(image.size) < side:
        raise ValueError(
            f"a picture of {image.width}x{image.height} px holds no native crop of {side} px: leave out this metric, "
            "or give larger pictures"
        )
    corners = np.random.default_rng(side).random((num, 2))
    room = (image.width - side + 1, image.height - side + 1)
    places = [(int(x * room[0]), int(y * room[1])) for x, y in corners]
    return [image.crop((x, y, x + side, y + side)) for x, y in places]

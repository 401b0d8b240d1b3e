"""How near a picture is to one that it should equal: the truth at its own size, or the native picture below it."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

__all__ = ["consistency", "psnr"]

ROUNDING = 1 / 12
"""Mean squared error of rounding to gray levels: no 8-bit picture is known better, and a copy gets 58.9 dB."""


def psnr(image: Image.Image, reference: Image.Image) -> float:
    """Peak signal-to-noise ratio in dB over all pixels and channels, at most 58.9. Sizes must be equal."""
    if image.size != reference.size:
        raise ValueError(
            f"a picture of {_size(image)} px cannot be compared pixel by pixel with one of {_size(reference)} px: give "
            "a reference of the same size, or measure `consistency` with a smaller one"
        )
    difference = np.asarray(image, dtype=np.float64) - np.asarray(reference, dtype=np.float64)
    return 10 * math.log10(255**2 / max(ROUNDING, float((difference**2).mean())))


def consistency(image: Image.Image, native: Image.Image) -> float:
    """PSNR in dB of the picture, reduced by area to the size of its native picture, with that picture.

    What a two-pass method must keep: the small picture that it started from. Says nothing of what was added.
    """
    if image.width * native.height != image.height * native.width or image.width < native.width:
        raise ValueError(
            f"a picture of {_size(image)} px does not reduce to its native picture of {_size(native)} px: expected the "
            "same shape, and at least the same size"
        )
    return psnr(image.resize(native.size, Image.Resampling.BOX), native)


def _size(image: Image.Image) -> str:
    return f"{image.width}x{image.height}"

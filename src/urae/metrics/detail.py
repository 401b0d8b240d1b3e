"""Detail: how much of the finest structure that a size can hold is there.

Metrics that reduce a picture to 224 px cannot see whether 4K holds more than 1K did. This one looks only at what
the last halving of the size would lose.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

__all__ = ["detail", "relative_detail"]


def detail(image: Image.Image) -> float:
    """Root mean square, in [0, 1], of the picture minus its 2 x 2 block means: what half the size cannot hold."""
    pixels = np.asarray(image.convert("RGB"), dtype=np.float64) / 255
    height, width = pixels.shape[0] // 2 * 2, pixels.shape[1] // 2 * 2
    if not (height and width):
        raise ValueError(f"a picture of {image.width}x{image.height} px has no half size: leave it out")
    blocks = pixels[:height, :width].reshape(height // 2, 2, width // 2, 2, 3)
    return float(np.sqrt(((blocks - blocks.mean(axis=(1, 3), keepdims=True)) ** 2).mean()))


def relative_detail(images: Sequence[Image.Image], truth: Sequence[Image.Image]) -> float:
    """Mean detail of `images` over that of `truth`: 1 is right, less is blurred, more is noisy or overdrawn."""
    return float(np.mean([detail(image) for image in images]) / np.mean([detail(image) for image in truth]))

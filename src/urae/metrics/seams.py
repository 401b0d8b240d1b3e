"""Grids and stripes: what a model leaves behind at the borders of its tokens and tiles.

Both look at differences of neighbouring pixels at the native size, in gray levels of 255. A picture of a fence has
them too: compare with the truth, or with a baseline on the same prompts.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

__all__ = ["grid", "stripes"]

PERIOD = 16
"""Pixels a token of FLUX; patterns of 2, 4 and 8 px (a pixel of the latent picture, JPEG) show in it too."""


def grid(image: Image.Image) -> float:
    """How much the strongest of 16 phases of a 16 px grid stands out, over the median phase; 0 is none.

    (strongest - median) / (median + 1) of the mean absolute difference across columns, or rows if that is more.
    """
    gray = np.asarray(image.convert("L"), dtype=np.float64)
    return max(_stands_out(gray), _stands_out(gray.T))


def stripes(image: Image.Image) -> float:
    """The strongest straight line that runs across the whole picture: a seam between tiles, a banding stripe.

    The largest absolute median, along a row or a column, of second differences across it, in gray levels; gradients
    and textures have about 0.
    """
    gray = np.asarray(image.convert("L"), dtype=np.float64)
    return max(_strongest_line(gray), _strongest_line(gray.T))


def _stands_out(gray: np.ndarray) -> float:
    if gray.shape[1] < 2 * PERIOD + 1:
        raise ValueError(
            f"a picture {gray.shape[1]} px wide or high is too small for a grid of {PERIOD} px: leave it out"
        )
    profile = np.abs(np.diff(gray, axis=1)).mean(axis=0)
    phases = profile[: len(profile) // PERIOD * PERIOD].reshape(-1, PERIOD).mean(axis=0)
    middle = np.median(phases)
    return float((phases.max() - middle) / (middle + 1))


def _strongest_line(gray: np.ndarray) -> float:
    if gray.shape[1] < 3:
        raise ValueError(
            f"a picture {gray.shape[1]} px wide or high is too small for a line to cross: leave it out"
        )
    return float(np.abs(np.median(np.diff(gray, n=2, axis=1), axis=0)).max())

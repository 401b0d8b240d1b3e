"""Repetition: does the picture hold copies of its own parts on a grid?

The failure of a diffusion transformer above its native size is rows and columns of the same object. Copies show
as peaks of the autocorrelation away from its centre. The picture is reduced to 64 px and its smooth part taken
away, so that neither a fine texture nor a gradient counts; each lag is normalised by the overlap it leaves. What is
alike along a line, such as a horizon, a pole or the border of two halves, fits on itself at every lag along that line:
a copy has to stand out from the lags around it.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageFilter

__all__ = ["autocorrelation", "repetition"]

SIDE = 64
NEAREST = 0.2
"""Least lag, of the side."""
OVERLAP = 0.25
"""Least part of the picture in which it meets its shifted self."""
RINGS = range(3, SIDE // 8 + 1)
"""Distances of the lags that a copy has to stand out from, px of the reduced picture."""


def repetition(image: Image.Image) -> float:
    """How well the picture fits on itself where that stands out, in [0, 1]: 1 where a part returns exactly, lower is
    better.

    The largest normalised autocorrelation at lags of at least a fifth of the side that leave at least a quarter of the
    picture; no more than twice what it exceeds the lags around by.
    """
    small = _reduced(image)
    return _strongest(small - _smooth(small), rounding=1.0, stands_out=True)


def autocorrelation(image: Image.Image) -> float:
    """`repetition` as it was measured until November 2026: the same without the lags around, so that a pole, a horizon
    and a gradient count as copies."""
    small = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX)
    smooth = small.filter(ImageFilter.GaussianBlur(SIDE / 8))
    detail = np.asarray(small, dtype=np.float64) - np.asarray(smooth, dtype=np.float64)
    return _strongest(detail, rounding=0.0, stands_out=False)


def _strongest(detail: np.ndarray, *, rounding: float, stands_out: bool) -> float:
    """Of (64, 64, 3) gray levels less their smooth part; `rounding`: variance of what is not to be compared."""
    correlation = np.sum([_correlate(channel, channel) for channel in np.moveaxis(detail, 2, 0)], axis=0)
    energy = (detail**2).sum(axis=2)
    ones = np.ones_like(energy)
    # By Cauchy-Schwarz the correlation at a lag is at most the geometric mean of the two overlapping energies.
    bound = np.sqrt(np.maximum(_correlate(energy, ones), 0) * np.maximum(_correlate(ones, energy), 0))
    rows, columns = np.meshgrid(_lags(), _lags(), indexing="ij")
    share = np.clip(1 - abs(rows) / SIDE, 0, 1) * np.clip(1 - abs(columns) / SIDE, 0, 1)
    counts = (np.maximum(abs(rows), abs(columns)) >= NEAREST * SIDE) & (share >= OVERLAP)
    # A lag whose overlap holds hardly any of the picture's energy compares nothing with nothing.
    counts &= bound > 0.1 * energy.sum()
    if not counts.any():
        return 0.0
    alike = correlation / np.maximum(bound + 3 * rounding * SIDE**2 * share, 1e-9)
    found = alike[counts]
    if stands_out:
        around = _around(np.where(share >= OVERLAP / 3, alike, -1.0), counts)
        found = np.minimum(found, 2 * (found - np.maximum(around, 0)))
    return float(np.clip(found.max(), 0, 1))


def _around(alike: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """For each lag that counts the largest value on the square ring around it, of the ring where that is least."""
    rows, columns = np.nonzero(counts)
    least = np.full(len(rows), np.inf)
    for radius in RINGS:
        steps = range(-radius, radius + 1)
        ring = [(a, b) for a in steps for b in steps if max(abs(a), abs(b)) == radius]
        values = [alike[(rows + a) % (2 * SIDE), (columns + b) % (2 * SIDE)] for a, b in ring]
        least = np.minimum(least, np.max(values, axis=0))
    return least


def _reduced(image: Image.Image) -> np.ndarray:
    """(64, 64, 3) gray levels, not rounded: the steps of a rounded gradient return."""
    channels = [Image.fromarray(np.asarray(band, dtype=np.float32)) for band in image.convert("RGB").split()]
    small = [np.asarray(band.resize((SIDE, SIDE), Image.Resampling.BOX)) for band in channels]
    return np.stack(small, axis=2).astype(np.float64)


def _smooth(small: np.ndarray) -> np.ndarray:
    """Gaussian of an eighth of the side; beyond its borders the picture is mirrored, so that a gradient goes on."""
    places = np.arange(SIDE)
    distances = [
        places[:, None] - places,
        places[:, None] + places + 1,
        places[:, None] + places + 1 - 2 * SIDE,
    ]
    weights = np.sum([np.exp(-((d / (SIDE / 8)) ** 2) / 2) for d in distances], axis=0)
    weights /= weights.sum(axis=1, keepdims=True)
    return np.einsum("ij,jkc,lk->ilc", weights, small, weights)


def _lags() -> np.ndarray:
    return np.fft.fftfreq(2 * SIDE, 1 / (2 * SIDE)).round()


def _correlate(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Linear cross-correlation of two (64, 64) arrays at every lag, (128, 128), lag 0 first."""
    shape = (2 * SIDE, 2 * SIDE)
    return np.fft.irfft2(np.fft.rfft2(a, shape) * np.conj(np.fft.rfft2(b, shape)), shape)

"""How busy a picture is at its native size: co-occurrence of gray levels, compression, flat tiles, spectrum.

Noise raises the first two as detail does, so none of these has a better direction: they say that two sets differ,
and a metric of quality has to say which is right. Parts of a picture beyond the last whole tile are not looked at.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator

import numpy as np
from PIL import Image

__all__ = ["compression_ratio", "flatness", "glcm_entropy", "glcm_score", "spectrum_slope"]

LEVELS, TILE = 64, 64
FLAT_TILE, FLAT_VARIANCE = 240, 800.0
ROUNDING = 1 / 12
"""Variance of rounding to gray levels."""


def glcm_score(image: Image.Image) -> float:
    """GLCM score in bits, mean over 64 px tiles (Diffusion-4K, Zhang et al., 2025).

    As its code has it: the entropy of the histogram of the *values* of all 16 co-occurrence matrices of a tile, not
    that of the matrices themselves, which is `glcm_entropy`.
    """
    return float(np.mean([_value_entropy(tile) for tile in _tiles(_levels(image), TILE)]))


def glcm_entropy(image: Image.Image) -> float:
    """Haralick's entropy of gray-level co-occurrence in nats, mean over 64 px tiles, distances 1 to 4 and 4 angles."""
    return float(np.mean([_haralick_entropy(tile) for tile in _tiles(_levels(image), TILE)]))


def compression_ratio(image: Image.Image) -> float:
    """Bytes of the pixels over bytes of the same as JPEG of quality 95, 4:2:0 (after Diffusion-4K, which divides the
    totals of a whole set): less is busier."""
    stream = io.BytesIO()
    image.convert("RGB").save(stream, "JPEG", quality=95, subsampling="4:2:0")
    return image.width * image.height * 3 / stream.tell()


def flatness(image: Image.Image) -> float:
    """Share in [0, 1] of 240 px tiles whose Sobel magnitudes (gray levels) vary by less than 800 (UltraFlux, 2025)."""
    gray = np.asarray(image.convert("L"), dtype=np.float64)
    return float(np.mean([_sobel(tile).var() < FLAT_VARIANCE for tile in _tiles(gray, FLAT_TILE)]))


def spectrum_slope(image: Image.Image) -> float:
    """Exponent of the radial power spectrum over frequency, from 1/16 of the Nyquist frequency up to it, or to where
    nothing is left but the rounding to gray levels.

    About -2 for photographs (Field, 1987), less where fine structure is missing, 0 for white noise. Of the largest
    square in the middle, with a Hann window.
    """
    gray = _middle_square(np.asarray(image.convert("L"), dtype=np.float64))
    side = len(gray)
    window = np.outer(np.hanning(side), np.hanning(side))
    power = np.abs(np.fft.rfft2((gray - gray.mean()) * window)) ** 2
    radius = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None, :])
    edges = np.geomspace(1 / 32, 1 / 2, 17)
    ring = np.digitize(radius, edges) - 1
    means = np.array([_mean(power[ring == i]) for i in range(16)])
    known = np.isfinite(means) & (means > 0)
    known &= _above_rounding(means, ROUNDING * (window**2).sum())
    if known.sum() < 2:
        raise ValueError(
            f"a picture of {image.width}x{image.height} px without any structure, or too small, has no spectrum slope: "
            "leave it out, or leave out this metric"
        )
    centres = np.sqrt(edges[:-1] * edges[1:])
    return float(np.polyfit(np.log(centres[known]), np.log(means[known]), 1)[0])


def _above_rounding(means: np.ndarray, floor: float) -> np.ndarray:
    """The rings (n,) up to the first that holds little but rounding, itself included: those above it hold no more, and
    make what is blurred look rich. A smooth gradient is rounded in bands, which are stronger than white noise."""
    lost = np.flatnonzero(means < 64 * floor)
    return np.arange(len(means)) <= (lost[0] if len(lost) else len(means))


def _levels(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("L"), dtype=np.int64) // (256 // LEVELS)


def _tiles(pixels: np.ndarray, side: int) -> Iterator[np.ndarray]:
    if min(pixels.shape) < side:
        raise ValueError(
            f"a picture of {pixels.shape[1]}x{pixels.shape[0]} px holds no {side} px tile: leave out this metric, or "
            "give larger pictures"
        )
    for top in range(0, pixels.shape[0] - side + 1, side):
        for left in range(0, pixels.shape[1] - side + 1, side):
            yield pixels[top : top + side, left : left + side]


def _offsets() -> list[tuple[int, int]]:
    """(row, column) steps at 0, 45, 90 and 135 degrees, rounded as scikit-image does: 4 diagonal steps are 3 pixels."""
    angles = [0, math.pi / 4, math.pi / 2, 3 * math.pi / 4]
    return [(round(math.sin(a) * d), round(math.cos(a) * d)) for d in (1, 2, 3, 4) for a in angles]


OFFSETS = _offsets()


def _counts(tile: np.ndarray) -> Iterator[np.ndarray]:
    """(64 x 64,) counts of ordered pairs of levels, for each offset."""
    side = len(tile)
    for row, column in OFFSETS:
        first = tile[: side - row, max(0, -column) : side - max(0, column)]
        second = tile[row:, max(0, column) : side - max(0, -column)]
        yield np.bincount((first * LEVELS + second).ravel(), minlength=LEVELS**2)


def _value_entropy(tile: np.ndarray) -> float:
    values, times = [], []
    for counts in _counts(tile):
        how_often = np.bincount(counts)
        met = np.flatnonzero(how_often)
        values.append(met / counts.sum())
        times.append(how_often[met])
    _, places = np.unique(np.concatenate(values), return_inverse=True)
    return _entropy(np.bincount(places, weights=np.concatenate(times))) / math.log(2)


def _haralick_entropy(tile: np.ndarray) -> float:
    return float(np.mean([_entropy(counts) for counts in _counts(tile)]))


def _entropy(counts: np.ndarray) -> float:
    """In nats."""
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum())


def _sobel(tile: np.ndarray) -> np.ndarray:
    padded = np.pad(tile, 1, mode="reflect")
    across, down = padded[:, 2:] - padded[:, :-2], padded[2:] - padded[:-2]
    horizontal = across[:-2] + 2 * across[1:-1] + across[2:]
    vertical = down[:, :-2] + 2 * down[:, 1:-1] + down[:, 2:]
    return np.hypot(horizontal, vertical)


def _middle_square(pixels: np.ndarray) -> np.ndarray:
    side = min(pixels.shape)
    top, left = (pixels.shape[0] - side) // 2, (pixels.shape[1] - side) // 2
    return pixels[top : top + side, left : left + side]


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else math.nan

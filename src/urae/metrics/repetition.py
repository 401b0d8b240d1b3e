"""Repetition: does the picture hold copies of its own parts on a grid?

The failure of a diffusion transformer above its native size is rows and columns of the same object. Copies show
as peaks of the autocorrelation away from its centre. The picture is reduced to 64 px and its smooth part taken
away, so that neither a fine texture nor a gradient counts; each lag is normalised by the overlap it leaves.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageFilter

__all__ = ["repetition"]

SIDE = 64


def repetition(image: Image.Image, *, nearest: float = 0.2, overlap: float = 0.25) -> float:
    """The largest normalised autocorrelation in [0, 1] at lags of at least `nearest` of the side that leave at
    least `overlap` of the picture; 1 where a part returns exactly. Lower is better."""
    small = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX)
    smooth = small.filter(ImageFilter.GaussianBlur(SIDE / 8))
    detail = np.asarray(small, dtype=np.float64) - np.asarray(smooth, dtype=np.float64)
    correlation = np.sum([_correlate(channel, channel) for channel in np.moveaxis(detail, 2, 0)], axis=0)
    energy = (detail**2).sum(axis=2)
    ones = np.ones_like(energy)
    # By Cauchy-Schwarz the correlation at a lag is at most the geometric mean of the two overlapping energies.
    bound = np.sqrt(np.maximum(_correlate(energy, ones), 0) * np.maximum(_correlate(ones, energy), 0))
    rows, columns = np.meshgrid(_lags(), _lags(), indexing="ij")
    share = (1 - abs(rows) / SIDE) * (1 - abs(columns) / SIDE)
    counts = (np.maximum(abs(rows), abs(columns)) >= nearest * SIDE) & (share >= overlap)
    # A lag whose overlap holds hardly any of the picture's energy compares nothing with nothing.
    counts &= bound > 0.1 * energy.sum()
    if not counts.any():
        return 0.0
    return float(np.clip((correlation[counts] / bound[counts]).max(), 0, 1))


def _lags() -> np.ndarray:
    return np.fft.fftfreq(2 * SIDE, 1 / (2 * SIDE)).round()


def _correlate(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Linear cross-correlation of two (64, 64) arrays at every lag, (128, 128), lag 0 first."""
    shape = (2 * SIDE, 2 * SIDE)
    return np.fft.irfft2(np.fft.rfft2(a, shape) * np.conj(np.fft.rfft2(b, shape)), shape)

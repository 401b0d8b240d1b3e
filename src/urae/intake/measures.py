"""What is measured of an image before it is judged.

All of it is seen in the image's luminance, in up to 36 tiles of 256 px spread over the picture. Sharpness and
flatness are measured at the size at which the image would be trained on, because a soft photograph of 100
megapixels makes a sharp one of 16; blockiness where JPEG left it, in the file's own pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image

from urae.data.pixels import cover_scale
from urae.resolution import Size

__all__ = ["Measures", "Tiles", "measure", "perceptual_hash"]

TILE = 256
TILES_A_SIDE = 6
FLAT = 0.5
"""Standard deviation of a tile's octave below the finest, in grey levels of 255, under which it is called flat:
what is left of it is noise."""
LOUD = 8.0
"""Grey levels at which a step is cut off, so that edges of the picture do not drown those of JPEG's blocks."""


@dataclass(frozen=True, kw_only=True)
class Measures:
    """Of one image. Each number is compared with a threshold of `Filters`."""

    size: Size
    """Width and height as seen upright, px."""
    entropy: float
    """Of the histogram of 256 grey levels, bits: 0 for one colour, 8 for all levels alike."""
    flatness: float
    """Share of the picture, in [0, 1], without anything to see in it."""
    sharpness: float
    """Energy of the finest octave over that of the next, in the most textured tiles: 0 for an enlarged image."""
    blockiness: float
    """Mean step in grey level at the borders of JPEG's 8 px blocks, over the mean elsewhere: 1 without blocks."""
    hash: int
    """64 bits, most of which stay when the image is scaled, compressed or retouched."""


def measure(grey: Image.Image, tiles: Tiles) -> Measures:
    """Measure an image by its luminance, and by the tiles of that at the size of its bucket."""
    return Measures(
        size=grey.size,
        entropy=round(grey.entropy(), 3),
        flatness=round(tiles.flatness(), 3),
        sharpness=round(tiles.sharpness(), 5),
        blockiness=round(blockiness(grey), 3),
        hash=perceptual_hash(grey),
    )


@dataclass(frozen=True)
class Tiles:
    """The spectra of tiles of an image."""

    corners: list[tuple[int, int]]
    """Left and top of each tile, in px of the scaled image."""
    scale: float
    fine: np.ndarray
    """Variance of each tile in the finest octave (wavelengths of 2 to 4 px), in squared grey levels."""
    next: np.ndarray
    """The same in the octave below (4 to 8 px)."""

    @classmethod
    def of(cls, grey: Image.Image, bucket: Size) -> Tiles:
        """The tiles of an image that would be trained on at `bucket` (width, height). Only the tiles are resized, not
        the whole image."""
        scale = min(cover_scale(grey.size, bucket), 1.0)
        width, height = (max(round(side * scale), 1) for side in grey.size)
        corners = [(left, top) for top in _starts(height) for left in _starts(width)]
        fine, next_ = zip(*(_octaves(_tile(grey, corner, scale)) for corner in corners), strict=True)
        return cls(corners, scale, np.array(fine), np.array(next_))

    def flatness(self) -> float:
        return float((self.next < FLAT**2).mean())

    def sharpness(self) -> float:
        """Over the quarter of the tiles with most to see: out of focus, and in the sky, there is only noise."""
        textured = np.argsort(self.next)[-max(len(self.next) // 4, 1) :]
        return float(self.fine[textured].sum() / max(self.next[textured].sum(), 1e-9))

    def most_textured(self) -> tuple[int, int, int, int]:
        """Box (left, top, right, bottom) of one tile in the image's own px."""
        left, top = self.corners[int(np.argmax(self.next))]
        box = (left, top, left + TILE, top + TILE)
        return tuple(round(side / self.scale) for side in box)  # type: ignore[return-value]


def blockiness(grey: Image.Image) -> float:
    """The smaller one of across and down: stripes in the picture have one direction, blocks have both."""
    starts = [(left, top) for top in _starts(grey.height) for left in _starts(grey.width)]
    # Multiples of 8, so that the borders of all tiles fall on the same pixels.
    tiles = [
        _pixels(grey.crop((x // 8 * 8, y // 8 * 8, x // 8 * 8 + TILE, y // 8 * 8 + TILE))) for x, y in starts
    ]
    return min(_border_step(tiles), _border_step([tile.T for tile in tiles]))


def perceptual_hash(grey: Image.Image) -> int:
    """Signs of the 8 x 8 lowest cosine coefficients of the image at 32 x 32 px, about their median."""
    small = np.asarray(grey.resize((32, 32), Image.Resampling.LANCZOS), dtype=np.float64)
    low = _COSINES @ small @ _COSINES.T
    bits = (low > np.median(low)).ravel()
    return int("".join("01"[int(bit)] for bit in bits), 2)


_COSINES = np.cos(np.pi * np.outer(np.arange(1, 9), np.arange(32) + 0.5) / 32)
"""Without the constant, which is the picture's brightness."""


def _starts(side: int) -> list[int]:
    num = min(TILES_A_SIDE, max(side // TILE, 1))
    return [round(start) for start in np.linspace(0, max(side - TILE, 0), num)]


def _tile(grey: Image.Image, corner: tuple[int, int], scale: float) -> np.ndarray:
    width, height = (min(TILE, max(round(side * scale), 1)) for side in grey.size)
    left, top = corner
    box = (
        left / scale,
        top / scale,
        min((left + width) / scale, grey.width),
        min((top + height) / scale, grey.height),
    )
    return _pixels(grey.resize((width, height), Image.Resampling.LANCZOS, box=box))


def _pixels(grey: Image.Image) -> np.ndarray:
    return np.asarray(grey, dtype=np.float32)


def _octaves(tile: np.ndarray) -> tuple[float, float]:
    """Variance in the two finest octaves."""
    window, fine, next_ = _bands(tile.shape)
    spectrum = np.abs(np.fft.rfft2((tile - tile.mean()) * window)) ** 2
    return float(spectrum[fine].sum()), float(spectrum[next_].sum())


@lru_cache(maxsize=8)
def _bands(shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A window, scaled so that the squared spectrum is variance, and where the two finest octaves are."""
    window = np.outer(*(np.hanning(side + 2)[1:-1] for side in shape))
    window *= np.sqrt(2 / (window**2).sum() / window.size)  # 2: `rfft2` gives half of a symmetric spectrum
    across, down = np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])
    radius = np.hypot(across, down)
    fine, next_ = (radius >= 0.25) & (radius < 0.5), (radius >= 0.125) & (radius < 0.25)
    return window.astype(np.float32), fine, next_


def _border_step(tiles: list[np.ndarray]) -> float:
    """Of vertical borders, wherever the image's grid of 8 px begins. A step is a pixel's difference from the last
    less those beside it, so that a slope has none."""
    steps, counts = np.zeros(8), np.zeros(8)
    for tile in tiles:
        slope = np.pad(np.diff(tile, axis=1), ((0, 0), (1, 1)), mode="edge")
        step = np.minimum(np.abs(slope[:, 1:-1] - (slope[:, :-2] + slope[:, 2:]) / 2), LOUD)
        for phase in range(min(8, step.shape[1])):
            steps[phase] += step[:, phase::8].sum()
            counts[phase] += step[:, phase::8].size
    means = steps / np.maximum(counts, 1)
    return float(means.max() / max(np.median(means), 1e-3))

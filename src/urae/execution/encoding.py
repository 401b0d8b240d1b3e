"""The VAE's encoder within the memory there is.

At its first level the encoder holds maps of 128 channels at the image's full size: 4.3 GB each for a 4096 px
image in bf16, and five of them at a time. There are three ways to run the stock module (`vae_run`):

- whole: as it is;
- strips: the same function, by `urae.execution.strips`. Two maps at a time;
- tiles: diffusers' own tiling. Small at any size, but each tile has norms and attention of its own, so these
  are other latents.

The first two differ in rounding alone, so together they are the "exact" encoding, and which of them runs may
change from machine to machine; "tiled" is another encoding, and entries of the two never mix in a cache. Which of the
two is faster depends on the kernels that a GPU's libraries choose, so whoever encodes many images there times both.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from urae.execution.budget import encoding_bytes, fits
from urae.execution.choices import ENCODINGS, Encoding, VaeWay
from urae.execution.strips import has_strips
from urae.resolution import Size

__all__ = ["FasterWay", "choose_encoding", "encoding_way", "encoding_ways"]

TRIES = 2
"""Images that a way is timed on: the first one also loads kernels and chooses among them."""

TOO_SLOW = 4
"""Times the seconds of another way at which a way has no second try."""


def choose_encoding(vae: Any, sizes: Sequence[Size], *, asked: str, free: float) -> Encoding:
    """What is encoded for images of these sizes, with `free` bytes: what was asked for, and for "auto" exact if
    strips of the largest fit."""
    if asked not in ENCODINGS:
        raise ValueError(f"encoding is {asked!r}: expected one of {', '.join(ENCODINGS)}")
    if asked == "exact" and not has_strips(vae):
        raise ValueError(
            f"encoding='exact' knows the layers of AutoencoderKL, not of {type(vae).__name__}: use tiled"
        )
    if asked != "auto":
        return "exact" if asked == "exact" else "tiled"
    least: VaeWay = "strips" if has_strips(vae) else "whole"
    return "exact" if fits(max(encoding_bytes(vae, size, least) for size in sizes), free) else "tiled"


def encoding_way(vae: Any, size: Size, encoding: Encoding, *, free: float) -> VaeWay:
    """The fastest way to this encoding of one image that fits into `free` bytes; if none does, the one that
    needs the least."""
    return encoding_ways(vae, size, encoding, free=free)[0]


def encoding_ways(vae: Any, size: Size, encoding: Encoding, *, free: float) -> tuple[VaeWay, ...]:
    """All ways to this encoding that fit; if none does, the one that needs the least."""
    if encoding == "tiled":
        return ("tiles",)
    exact: tuple[VaeWay, ...] = ("whole", "strips") if has_strips(vae) else ("whole",)
    return tuple(way for way in exact if fits(encoding_bytes(vae, size, way), free)) or exact[-1:]


class FasterWay:
    """Which of several ways the next image of one size is encoded: each is timed on a few, then the fastest is kept."""

    def __init__(self, ways: Sequence[VaeWay]) -> None:
        self._seconds = dict.fromkeys(ways, math.inf)
        self._tries = dict.fromkeys(ways, 0)

    @property
    def way(self) -> VaeWay:
        """Of the next image."""
        fastest = min(self._seconds, key=lambda way: self._seconds[way])
        for way, tries in self._tries.items():
            too_slow = tries > 0 and self._seconds[way] > TOO_SLOW * self._seconds[fastest]
            if tries < TRIES and not too_slow:
                return way
        return fastest

    def took(self, seconds: float) -> None:
        """What the image just encoded, by `way`, has taken."""
        way = self.way
        self._tries[way] += 1
        self._seconds[way] = min(self._seconds[way], seconds)

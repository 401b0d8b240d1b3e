"""The VAE's encoder within the memory there is.

At its first level the encoder holds maps of 128 channels at the image's full size: 4.3 GB each for a 4096 px
image in bf16, and five of them at a time. There are three ways to run the stock module (`vae_run`):

- whole: as it is;
- strips: the same function, by `urae.execution.strips`. Two maps at a time;
- tiles: diffusers' own tiling. Small at any size, but each tile has norms and attention of its own, so these
  are other latents.

The first two differ in rounding alone, so together they are the "exact" encoding, and which of them runs may
change from machine to machine; "tiled" is another encoding, and entries of the two never mix in a cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from urae.execution.budget import encoding_bytes, fits
from urae.execution.choices import ENCODINGS, Encoding, VaeWay
from urae.execution.strips import has_strips
from urae.resolution import Size

__all__ = ["choose_encoding", "encoding_way"]


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
    if encoding == "tiled":
        return "tiles"
    return "whole" if fits(encoding_bytes(vae, size, "whole"), free) or not has_strips(vae) else "strips"

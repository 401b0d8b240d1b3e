"""The VAE's encoder within the memory there is.

At its first level the encoder holds maps of 128 channels at the image's full size: 4.3 GB each for a 4096 px
image in bf16, and five of them at a time. There are three ways to run the stock module:

- whole: as it is;
- strips: the same function, by `urae.execution.strips`. Two maps at a time;
- tiles: diffusers' own tiling. Small at any size, but each tile has norms and attention of its own, so these
  are other latents.

The first two differ in rounding alone, so together they are the "exact" encoding, and which of them runs may
change from machine to machine; "tiled" is another encoding, and entries of the two never mix in a cache.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import psutil
import torch

from urae.execution.strips import ROWS, has_strips, in_strips
from urae.families.vaes import vae_maps
from urae.resolution import Size

__all__ = [
    "ENCODINGS",
    "Encoding",
    "EncodingPlan",
    "choose_encoding",
    "encoding_need",
    "free_memory",
    "plan_encoding",
]

Encoding = Literal["exact", "tiled"]
"""Which function of the image the latents are."""

ENCODINGS = ("auto", "exact", "tiled")
"""What a user may ask for; "auto" is exact where it fits."""

Way = Literal["whole", "strips", "tiles"]

USABLE = 0.85
"""Share of the free memory that is planned with; the rest is for workspaces and fragments."""

MAPS_IN_STRIPS = 2
"""Maps of the first level that are alive at a time."""

STRIPS = 7
"""Strips of the first level that are alive while one is worked on, their fp32 copies included."""

PICTURE = 10
"""Numbers per pixel beside the maps: the pixel itself, and the latents of tiles before and after they meet."""


@dataclass(frozen=True, kw_only=True)
class EncodingPlan:
    """How the encoder runs for images of one size."""

    way: Way
    rows: int = ROWS
    """Of a strip; an even number."""

    @contextmanager
    def on(self, vae: Any) -> Iterator[None]:
        """Have this VAE encode so; it is as it was on exit."""
        with ExitStack() as undo:
            if self.way == "strips":
                undo.enter_context(in_strips(vae, rows=self.rows))
            if self.way == "tiles":
                undo.callback(setattr, vae, "use_tiling", vae.use_tiling)
                vae.enable_tiling()
            yield


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
    least: Way = "strips" if has_strips(vae) else "whole"
    return "exact" if max(encoding_need(vae, size, least) for size in sizes) <= USABLE * free else "tiled"


def plan_encoding(vae: Any, size: Size, encoding: Encoding, *, free: float) -> EncodingPlan:
    """The fastest way to this encoding of one image that fits into `free` bytes; if none does, the one that
    needs the least."""
    if encoding == "tiled":
        return EncodingPlan(way="tiles")
    fits = encoding_need(vae, size, "whole") <= USABLE * free
    return EncodingPlan(way="whole" if fits or not has_strips(vae) else "strips")


def encoding_need(vae: Any, size: Size, way: Way) -> int:
    """Bytes of activations for one image of this size, px: counted on fake tensors, without the workspaces of
    convolutions."""
    width, height = size
    maps, pixels = vae_maps(vae), width * height
    if way == "strips":
        channels = vae.config.block_out_channels[0]
        values = (MAPS_IN_STRIPS * pixels + STRIPS * min(ROWS, height) * width) * channels
    else:
        values = maps.encoder * (min(maps.tile**2, pixels) if way == "tiles" else pixels)
    return (values + PICTURE * pixels) * vae.dtype.itemsize


def free_memory(device: torch.device) -> int:
    """Bytes that are free on a device."""
    if device.type == "cuda":
        torch.cuda.empty_cache()  # else what torch keeps of a module that has left counts as used
        return torch.cuda.mem_get_info(device)[0]
    return int(psutil.virtual_memory().available)

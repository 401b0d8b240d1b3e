"""How many bytes a device has, and how many a model's weights and activations take.

Whoever draws, caches or plans reckons with these. Activations are counted, not measured: live bytes on fake tensors
of FLUX.1's architecture, without the workspaces of convolutions. In bf16 these are 17.2 values of the transformer's
width per token of a forward pass; the VAE holds several maps of the picture, or of one tile, at its full size.
"""

from __future__ import annotations

from typing import Any

import psutil
import torch

from urae.execution.choices import VaeWay
from urae.execution.strips import ROWS
from urae.families import family_of
from urae.families.vaes import vae_maps
from urae.resolution import Size

__all__ = ["USABLE", "call_bytes", "decoding_bytes", "encoding_bytes", "fits", "free_bytes"]

USABLE = 0.85
"""Share of the free memory that is planned with; the rest is for workspaces and fragments."""

WIDTHS_PER_TOKEN = 22
"""Live values per token in a transformer block, in units of its width: 17.2 counted for FLUX.1, 21.5 for FLUX.2."""

ENCODER_MAPS_IN_STRIPS = 2
"""Maps of the encoder's first level that are alive at a time in strips."""

ENCODER_STRIPS = 7
"""Strips of the encoder's first level that are alive while one is worked on, their fp32 copies included."""

DECODER_STRIPS = 8
"""The same of the decoder's last enlarged map."""

ENCODER_PICTURE = 10
"""Values per pixel beside the encoder's maps: the pixel itself, and the latents of tiles before and after they meet."""

DECODER_PICTURE = 16
"""Values per pixel beside the decoder's maps: the picture, before and after tiles meet, and its latents."""


def free_bytes(device: torch.device) -> int:
    """Bytes that are free on a device."""
    if device.type == "cuda":
        torch.cuda.empty_cache()  # else what torch keeps of a module that has left counts as used
        return torch.cuda.mem_get_info(device)[0]
    return int(psutil.virtual_memory().available)


def fits(needed: float, free: float) -> bool:
    """Whether so many bytes have room in those that are free."""
    return needed <= USABLE * free


def call_bytes(transformer: Any, num_tokens: int) -> int:
    """Of the activations of one call of a transformer without gradients, for one image with its text."""
    layers = family_of(transformer).layers
    mask = num_tokens**2 if layers.mask == "pairs" else 0
    return (WIDTHS_PER_TOKEN * layers.width(transformer) * num_tokens + mask) * transformer.dtype.itemsize


def encoding_bytes(vae: Any, size: Size, way: VaeWay) -> int:
    """Of the encoder's activations for one image of this size, px."""
    width, height = size
    if way == "strips":
        maps = ENCODER_MAPS_IN_STRIPS * width * height + ENCODER_STRIPS * min(ROWS, height) * width
        values = maps * vae.config.block_out_channels[0]
    else:
        values = vae_maps(vae).encoder * _pixels(vae, size, way)
    return (values + ENCODER_PICTURE * width * height) * vae.dtype.itemsize


def decoding_bytes(vae: Any, size: Size, way: VaeWay) -> int:
    """Of the decoder's activations for one picture of this size, px."""
    width, height = size
    if way == "strips":
        # Of the last level the map before it is enlarged, and two maps of its own channels.
        inner, outer = vae.config.block_out_channels[:2][-1], vae.config.block_out_channels[0]
        strips = DECODER_STRIPS * inner * width * min(ROWS, height)
        values = (inner // 4 + 2 * outer) * width * height + strips
    else:
        values = vae_maps(vae).decoder * _pixels(vae, size, way)
    return (values + DECODER_PICTURE * width * height) * vae.dtype.itemsize


def _pixels(vae: Any, size: Size, way: VaeWay) -> int:
    """That a map at full size has at most."""
    pixels = size[0] * size[1]
    return min(vae_maps(vae).tile ** 2, pixels) if way == "tiles" else pixels

"""The VAE's encoder within the memory there is.

At its first level the encoder holds maps of 128 channels at the image's full size: 4.3 GB each for a 4096 px
image in bf16, and five of them at a time. There are three ways to run the stock module:

- whole: as it is;
- strips: the same function. The convolutions of the down blocks run over horizontal strips with the rows of
  their neighbours around them, the group norms use the statistics of the whole map, and what follows the down
  blocks, attention included, sees the whole. Two maps at a time;
- tiles: diffusers' own tiling. Small at any size, but each tile has norms and attention of its own, so these
  are other latents.

The first two differ in rounding alone, so together they are the "exact" encoding, and which of them runs may
change from machine to machine; "tiled" is another encoding, and entries of the two never mix in a cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import psutil
import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from urae.resolution import Size

__all__ = [
    "ENCODINGS",
    "Encoding",
    "EncodingPlan",
    "choose_encoding",
    "encode_in_strips",
    "encoding_need",
    "free_memory",
    "plan_encoding",
]

Encoding = Literal["exact", "tiled"]
"""Which function of the image the latents are."""

ENCODINGS = ("auto", "exact", "tiled")
"""What a user may ask for; "auto" is exact where it fits."""

Way = Literal["whole", "strips", "tiles"]

ROWS = 64
"""Rows of a strip: few enough that its temporaries do not count beside two maps of a large image."""

USABLE = 0.85
"""Share of the free memory that is planned with; the rest is for workspaces and fragments."""

MAPS = {"whole": 5, "strips": 2, "tiles": 5}
"""Maps of the first level that are alive at a time: of the image, or of one tile."""

STRIPS = 7
"""Strips of the first level that are alive while one is worked on, their fp32 copies included."""

CHANNELS = 10
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
                vae.encoder.forward = partial(encode_in_strips, vae.encoder, rows=self.rows)
                undo.callback(delattr, vae.encoder, "forward")
            if self.way == "tiles":
                undo.callback(setattr, vae, "use_tiling", vae.use_tiling)
                vae.enable_tiling()
            yield


def choose_encoding(vae: Any, sizes: Sequence[Size], *, asked: str, free: float) -> Encoding:
    """What is encoded for images of these sizes, with `free` bytes: what was asked for, and for "auto" exact if
    strips of the largest fit."""
    if asked not in ENCODINGS:
        raise ValueError(f"encoding is {asked!r}: expected one of {', '.join(ENCODINGS)}")
    if asked == "exact" and not _is_known(vae):
        raise ValueError(
            f"encoding='exact' knows the layers of AutoencoderKL, not of {type(vae).__name__}: use tiled"
        )
    if asked != "auto":
        return "exact" if asked == "exact" else "tiled"
    least: Way = "strips" if _is_known(vae) else "whole"
    return "exact" if max(encoding_need(vae, size, least) for size in sizes) <= USABLE * free else "tiled"


def plan_encoding(vae: Any, size: Size, encoding: Encoding, *, free: float) -> EncodingPlan:
    """The fastest way to this encoding of one image that fits into `free` bytes; if none does, the one that
    needs the least."""
    if encoding == "tiled":
        return EncodingPlan(way="tiles")
    fits = encoding_need(vae, size, "whole") <= USABLE * free
    return EncodingPlan(way="whole" if fits or not _is_known(vae) else "strips")


def encoding_need(vae: Any, size: Size, way: Way) -> int:
    """Bytes of activations for one image of this size, px: counted on fake tensors, without the workspaces of
    convolutions."""
    width, height = size
    channels, bytes_each = vae.config.block_out_channels[0], vae.dtype.itemsize
    pixels = min(vae.config.sample_size**2, width * height) if way == "tiles" else width * height
    strips = STRIPS * min(ROWS, height) * width if way == "strips" else 0
    picture = CHANNELS * width * height
    return ((MAPS[way] * pixels + strips) * channels + picture) * bytes_each


def free_memory(device: torch.device) -> int:
    """Bytes that are free on a device."""
    if device.type == "cuda":
        torch.cuda.empty_cache()  # else what torch keeps of a module that has left counts as used
        return torch.cuda.mem_get_info(device)[0]
    return int(psutil.virtual_memory().available)


# --- strips ------------------------------------------------------------------------------------------------


@torch.no_grad()
def encode_in_strips(encoder: Any, pixels: Tensor, *, rows: int = ROWS) -> Tensor:
    """What the encoder of a stock `AutoencoderKL` returns for pixels (B, 3, H, W), by strips of `rows` rows (an
    even number)."""
    maps = _by_strips(encoder.conv_in, pixels, rows=rows)
    for block in encoder.down_blocks:
        for resnet in block.resnets:
            maps = _residual(resnet, maps, rows=rows)
        for downsampler in block.downsamplers or ():
            maps = _by_strips(downsampler, maps, rows=rows, stride=2)
    maps = encoder.mid_block(maps)
    return encoder.conv_out(encoder.conv_act(encoder.conv_norm_out(maps)))


def _residual(resnet: Any, maps: Tensor, *, rows: int) -> Tensor:
    """A residual block. The sum is written into `maps` where it has the channels for it: a third map of the
    full size would not fit."""
    first = nn.Sequential(_WholeNorm(resnet.norm1, maps, rows=rows), resnet.nonlinearity, resnet.conv1)
    hidden = _by_strips(first, maps, rows=rows)
    second = nn.Sequential(_WholeNorm(resnet.norm2, hidden, rows=rows), resnet.nonlinearity, resnet.conv2)
    total = maps if resnet.conv_shortcut is None else _by_strips(resnet.conv_shortcut, maps, rows=rows)
    for place, strip in _strips(second, hidden, rows=rows):
        total[:, :, place] += strip
    return total.div_(resnet.output_scale_factor)


class _WholeNorm(nn.Module):
    """A group norm with the statistics of a whole map, to be applied to parts of it."""

    def __init__(self, norm: nn.GroupNorm, maps: Tensor, *, rows: int) -> None:
        super().__init__()
        mean, variance = (
            statistic.repeat_interleave(norm.num_channels // norm.num_groups, dim=1)
            for statistic in _statistics(maps, norm.num_groups, rows=rows)
        )
        scale = norm.weight.float() * (variance + norm.eps).rsqrt()
        self.scale = scale[..., None, None]
        self.shift = (norm.bias.float() - mean * scale)[..., None, None]

    def forward(self, strip: Tensor) -> Tensor:
        return torch.addcmul(self.shift, strip.float(), self.scale).to(strip.dtype)


def _statistics(maps: Tensor, num_groups: int, *, rows: int) -> tuple[Tensor, Tensor]:
    """Mean and variance of each group over all rows, (B, groups), fp32: those of strips, put together."""
    strips = maps.split(rows, dim=2)
    found = [
        torch.var_mean(strip.float().unflatten(1, (num_groups, -1)).flatten(2), dim=2, correction=0)
        for strip in strips
    ]
    variances, means = (torch.stack(values) for values in zip(*found, strict=True))
    share = torch.tensor([strip.shape[2] / maps.shape[2] for strip in strips], device=maps.device)[
        :, None, None
    ]
    mean = (share * means).sum(dim=0)
    return mean, (share * (variances + (means - mean).square())).sum(dim=0)


def _by_strips(apply: Callable[[Tensor], Tensor], maps: Tensor, *, rows: int, stride: int = 1) -> Tensor:
    """A convolution of this stride over the whole map, strip by strip."""
    result = maps.new_empty(0)
    for place, strip in _strips(apply, maps, rows=rows, stride=stride):
        if place.start == 0:
            result = strip.new_empty(*strip.shape[:2], maps.shape[2] // stride, strip.shape[3])
        result[:, :, place] = strip
    return result


def _strips(
    apply: Callable[[Tensor], Tensor], maps: Tensor, *, rows: int, stride: int = 1
) -> Iterator[tuple[slice, Tensor]]:
    """Rows of the result, and `apply` there. Each strip goes in with `stride` more rows on either side, and
    what comes of those is dropped: it saw padding where the map goes on. At the map's own edges there is no
    more, and the padding is right."""
    height = maps.shape[2]
    for top in range(0, height, rows):
        bottom, above = min(top + rows, height), min(top, stride)
        place = slice(top // stride, bottom // stride)
        strip = apply(maps[:, :, top - above : bottom + stride])
        yield place, strip[:, :, above // stride :][:, :, : place.stop - place.start]


def _is_known(vae: Any) -> bool:
    return isinstance(vae, AutoencoderKL)

"""The VAE's encoder and decoder by horizontal strips: the same function as the whole, within less memory.

At full size a 4096 px image has maps of 128 and more channels, 4.3 GB each in bf16, and the stock module holds
several at a time. Here the convolutions run over strips with the rows of their neighbours around them, and the
group norms use the statistics of the whole map; what sees the whole, attention included, has an eighth of the
image's side. The results differ from the stock module's in rounding alone, where diffusers' own tiles, which have
norms and attention of their own, give another picture with seams between them.

The decoder's enlarged maps, its largest, are never whole: whoever reads rows of one has them enlarged anew.

A layer sees windows of one shape, at the edges of the map too. For each new shape a library of convolutions chooses a
kernel anew, and for some it chooses one that is many times slower.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderKLFlux2
from torch import Tensor, nn

from urae.execution.choices import VaeWay

__all__ = ["ROWS", "decode_in_strips", "encode_in_strips", "has_strips", "vae_run"]

ROWS = 64
"""Rows of a strip: few enough that its temporaries do not count beside two maps of a large image."""


def has_strips(vae: Any) -> bool:
    """Whether this VAE's layers are known here."""
    return isinstance(vae, AutoencoderKL | AutoencoderKLFlux2)


@contextmanager
def vae_run(vae: Any, way: VaeWay, *, rows: int = ROWS) -> Iterator[None]:
    """Have this VAE encode and decode in one of its ways, strips of `rows` rows (an even number) without gradients; it
    is as it was on exit."""
    with ExitStack() as undo:
        if way == "strips":
            for part, run in ((vae.encoder, encode_in_strips), (vae.decoder, decode_in_strips)):
                part.forward = partial(run, part, rows=rows)
                undo.callback(delattr, part, "forward")
        if way == "tiles":
            undo.callback(setattr, vae, "use_tiling", vae.use_tiling)
            vae.enable_tiling()
        yield


@torch.no_grad()
def encode_in_strips(encoder: Any, pixels: Tensor, *, rows: int = ROWS) -> Tensor:
    """What the encoder of a stock `AutoencoderKL` returns for pixels (B, 3, H, W), by strips of `rows` rows (an
    even number)."""
    maps = _by_strips(encoder.conv_in, _Kept(pixels), rows=rows)
    for block in encoder.down_blocks:
        for resnet in block.resnets:
            maps = _residual(resnet, _Kept(maps), rows=rows)
        for downsampler in block.downsamplers or ():
            maps = _by_strips(downsampler, _Kept(maps), rows=rows, stride=2)
    maps = encoder.mid_block(maps)
    return encoder.conv_out(encoder.conv_act(encoder.conv_norm_out(maps)))


@torch.no_grad()
def decode_in_strips(decoder: Any, latents: Tensor, *, rows: int = ROWS) -> Tensor:
    """What the decoder of a stock `AutoencoderKL` returns for latents (B, C, h, w), by strips of `rows` rows."""
    maps: _Maps = _Kept(decoder.mid_block(decoder.conv_in(latents)))
    for block in decoder.up_blocks:
        for resnet in block.resnets:
            maps = _Kept(_residual(resnet, maps, rows=rows))
        for upsampler in block.upsamplers or ():
            maps = _Enlarged(maps.rows(0, maps.height), upsampler)
    last = nn.Sequential(
        _WholeNorm(decoder.conv_norm_out, maps, rows=rows), decoder.conv_act, decoder.conv_out
    )
    return _by_strips(last, maps, rows=rows)


@dataclass(frozen=True)
class _Kept:
    """A map in memory."""

    tensor: Tensor

    @property
    def height(self) -> int:
        return self.tensor.shape[2]

    def rows(self, top: int, bottom: int) -> Tensor:
        return self.tensor[:, :, top:bottom]


@dataclass(frozen=True)
class _Enlarged:
    """A map of twice the side, of which only the rows that are asked for are made."""

    small: Tensor
    upsampler: nn.Module
    """Doubles the side, and convolves with one row of its neighbours."""

    @property
    def height(self) -> int:
        return 2 * self.small.shape[2]

    def rows(self, top: int, bottom: int) -> Tensor:
        # As many as the least favourable top needs, so that the upsampler sees one shape.
        num = min((bottom - top) // 2 + 3, self.small.shape[2])
        first = min(max(top // 2 - 1, 0), self.small.shape[2] - num)
        enlarged = self.upsampler(self.small[:, :, first : first + num])
        return enlarged[:, :, top - 2 * first : bottom - 2 * first]


_Maps = _Kept | _Enlarged


def _residual(resnet: Any, maps: _Maps, *, rows: int) -> Tensor:
    """A residual block. The sum is written into the map that came in where that is kept and has the channels for
    it: one more map of the full size would not fit."""
    first = nn.Sequential(_WholeNorm(resnet.norm1, maps, rows=rows), resnet.nonlinearity, resnet.conv1)
    if isinstance(maps, _Kept) and resnet.conv_shortcut is None:
        hidden, total = _by_strips(first, maps, rows=rows), maps.tensor
    else:
        # Together, so that enlarged rows are made once for both.
        hidden, total = _all_by_strips((first, resnet.conv_shortcut or nn.Identity()), maps, rows=rows)
    second = nn.Sequential(
        _WholeNorm(resnet.norm2, _Kept(hidden), rows=rows), resnet.nonlinearity, resnet.conv2
    )
    for strip in _strips(_Kept(hidden), rows=rows):
        # Not "+=", which would also write the sum over itself.
        total[:, :, strip.place].add_(strip.own(second(strip.rows)))
    return total.div_(resnet.output_scale_factor)


class _WholeNorm(nn.Module):
    """A group norm with the statistics of a whole map, to be applied to parts of it."""

    def __init__(self, norm: nn.GroupNorm, maps: _Maps, *, rows: int) -> None:
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


def _statistics(maps: _Maps, num_groups: int, *, rows: int) -> tuple[Tensor, Tensor]:
    """Mean and variance of each group over all rows, (B, groups), fp32: those of strips, put together."""
    found, shares = [], []
    for top in range(0, maps.height, rows):
        strip = maps.rows(top, min(top + rows, maps.height))
        groups = strip.float().unflatten(1, (num_groups, -1)).flatten(2)
        found.append(torch.var_mean(groups, dim=2, correction=0))
        shares.append(strip.shape[2] / maps.height)
    variances, means = (torch.stack(values) for values in zip(*found, strict=True))
    share = torch.tensor(shares, device=means.device)[:, None, None]
    mean = (share * means).sum(dim=0)
    return mean, (share * (variances + (means - mean).square())).sum(dim=0)


def _by_strips(apply: Callable[[Tensor], Tensor], maps: _Maps, *, rows: int, stride: int = 1) -> Tensor:
    """A convolution of this stride over the whole map, strip by strip."""
    return _all_by_strips((apply,), maps, rows=rows, stride=stride)[0]


def _all_by_strips(
    applied: tuple[Callable[[Tensor], Tensor], ...], maps: _Maps, *, rows: int, stride: int = 1
) -> list[Tensor]:
    """The same for several convolutions, which have each strip in turn."""
    results: list[Tensor] = []
    for strip in _strips(maps, rows=rows, stride=stride):
        for i, apply in enumerate(applied):
            part = strip.own(apply(strip.rows))
            if strip.place.start == 0:
                batch, channels, _, width = part.shape
                results.append(part.new_empty(batch, channels, maps.height // stride, width))
            results[i][:, :, strip.place] = part
    return results


@dataclass(frozen=True)
class _Strip:
    rows: Tensor
    """With `stride` more on either side. At the map's own edges, where the padding is right, both are on the other."""
    place: slice
    """Rows of the result."""
    above: int
    """Rows of the result that are dropped, another strip's or seen with padding where the map goes on."""

    def own(self, result: Tensor) -> Tensor:
        return result[:, :, self.above :][:, :, : self.place.stop - self.place.start]


def _strips(maps: _Maps, *, rows: int, stride: int = 1) -> Iterator[_Strip]:
    num = min(rows + 2 * stride, maps.height)
    for top in range(0, maps.height, rows):
        bottom = min(top + rows, maps.height)
        first = min(max(top - stride, 0), maps.height - num)
        place = slice(top // stride, bottom // stride)
        yield _Strip(maps.rows(first, first + num), place, (top - first) // stride)

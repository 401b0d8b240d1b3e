"""A smaller form of what a cache holds: 8 bits for the posterior's std and for text embeddings.

The mean stays as the VAE gave it. The std, whose logarithm varies little within a channel, becomes 256 steps
of that logarithm between the channel's smallest and largest; embeddings become 8-bit integers in blocks of 64
values with a scale of their own, because T5 has single values that are a hundred times the rest. A mask of text tokens
is no quantity to round. `small` and `restored` go by name: "std" and any embedding become two tensors each, everything
else passes through.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["restored", "small"]

BLOCK = 64
"""Values that share a scale."""

LEVELS = 255
"""Steps of an 8-bit logarithm."""

AS_IT_IS = ("mean", "mask")
"""How names end whose tensors pass through."""


def small(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The smaller form of named tensors: "name" becomes "name.codes" and "name.scales"."""
    packed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name.endswith(AS_IT_IS):
            packed[name] = tensor
        else:
            codes, scales = _log_coded(tensor) if name == "std" else _block_coded(tensor)
            packed |= {f"{name}.codes": codes, f"{name}.scales": scales}
    return packed


def restored(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The named tensors that `small` was given, up to its rounding; what it did not make is returned as it is."""
    found: dict[str, Tensor] = {}
    for full_name, tensor in tensors.items():
        name, _, part = full_name.partition(".")
        if not part:
            found[name] = tensor
        elif part == "codes":
            scales = tensors[f"{name}.scales"]
            found[name] = _log_decoded(tensor, scales) if name == "std" else _block_decoded(tensor, scales)
    return found


def _log_coded(std: Tensor) -> tuple[Tensor, Tensor]:
    """Codes (C, H, W) uint8, and each channel's lowest logarithm and step, (C, 2) fp32."""
    logarithm = std.float().log()
    lowest, highest = logarithm.amin(dim=(1, 2)), logarithm.amax(dim=(1, 2))
    step = (highest - lowest).clamp(min=1e-12) / LEVELS
    codes = ((logarithm - lowest[:, None, None]) / step[:, None, None]).round()
    return codes.to(torch.uint8), torch.stack([lowest, step], dim=1)


def _log_decoded(codes: Tensor, scales: Tensor) -> Tensor:
    lowest, step = scales[:, 0, None, None], scales[:, 1, None, None]
    return (lowest + step * codes.float()).exp()


def _block_coded(values: Tensor) -> tuple[Tensor, Tensor]:
    """Codes (..., width) int8 and scales (..., width / block) fp16."""
    blocks = values.float().unflatten(-1, (-1, math.gcd(values.shape[-1], BLOCK)))
    scales = (blocks.abs().amax(dim=-1) / 127).half()
    # A block of zeros has scale 0, and one whose scale is rounded down has values just above 127.
    codes = (blocks / scales.float().clamp(min=torch.finfo(torch.float16).tiny)[..., None]).round()
    return codes.clamp(-127, 127).to(torch.int8).flatten(-2), scales


def _block_decoded(codes: Tensor, scales: Tensor) -> Tensor:
    blocks = codes.float().unflatten(-1, (scales.shape[-1], -1))
    return (blocks * scales.float()[..., None]).flatten(-2)

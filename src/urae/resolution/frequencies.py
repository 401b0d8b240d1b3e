"""Rotary frequencies under position embeddings that set each one by a rule: NTK, YaRN, and DyPE over both.

All answer the same question: which frequencies of a model trained on a grid of `native` tokens are to be lowered, and
by how much, for a grid `scale` times as wide. Fast ones turn often within the native grid and tell neighbours
apart; slow ones tell regions apart and would reach angles that were never seen.

DyPE (dynamic position extrapolation) lowers them less and less as the noise goes: the layout is decided early, and at
the end the frequencies are the native ones. Its authors state that a patent is pending.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from urae.resolution.policy import Rope

__all__ = ["attention_scale", "frequencies", "ntk_factor"]


def frequencies(
    rope: Rope, *, theta: float, dim: int, scale: float, native: int, sigma: Tensor | float
) -> Tensor:
    """omega_i of a spatial axis of `dim` channels, (dim / 2,), fp64 (fp32 where the device has none).

    `native` is the native number of tokens along the axis, which the ramps of YaRN need, `sigma` the noise level
    in (0, 1], a number or a scalar on the device, which DyPE needs.
    """
    sigma = torch.as_tensor(sigma)
    dtype = torch.float32 if sigma.device.type in ("mps", "npu") else torch.float64
    strength = sigma.to(dtype) ** 2 if rope.startswith("dype") else torch.ones_like(sigma, dtype=dtype)
    exponents = torch.arange(0, dim, 2, dtype=dtype, device=sigma.device) / dim
    if rope == "ntk":
        return (theta * ntk_factor(scale, dim)) ** -exponents
    if rope == "dype_ntk":
        return (theta * ntk_factor(scale, dim) ** (2 * strength)) ** -exponents
    return _yarn(exponents, theta=theta, dim=dim, scale=scale, native=native, strength=strength)


def ntk_factor(scale: float, dim: int) -> float:
    """Factor on theta that lowers the slowest of dim / 2 frequencies by exactly `scale`: scale^(d / (d - 2))."""
    return scale ** (dim / (dim - 2))


def attention_scale(rope: Rope, scale: float) -> float:
    """Factor on cos and sin of the spatial axes that YaRN brings along: 0.1 ln(scale) + 1; 1 for the others."""
    return 0.1 * math.log(scale) + 1 if rope in ("yarn", "dype") else 1.0


def _yarn(
    exponents: Tensor, *, theta: float, dim: int, scale: float, native: int, strength: Tensor
) -> Tensor:
    """Native where omega turns often within the native grid, omega / scale where it hardly turns at all, NTK between.

    `strength` scales the numbers of turns at which one goes over into the other: 1 for YaRN, sigma^2 for DyPE.
    """
    omega = theta**-exponents
    by_ntk = (theta * ntk_factor(scale, dim)) ** -exponents
    index = exponents * dim / 2

    def ramp(turns_from: float, turns_to: float) -> Tensor:
        first, last = (
            dim * torch.log(native / (2 * math.pi * turns * strength)) / (2 * math.log(theta))
            for turns in (turns_from, turns_to)
        )
        first, last = first.floor().clamp(min=0), last.ceil()
        return 1 - ((index - first) / (last - first).clamp(min=1e-3)).clamp(0, 1)

    is_ntk, is_native = ramp(1.25, 0.75), ramp(16, 2)
    lowered = omega / scale * (1 - is_ntk) + by_ntk * is_ntk
    return lowered * (1 - is_native) + omega * is_native

"""FLUX.1's rotary positions: `pos_embed` makes cos and sin of (0, row, column), text at (0, 0, 0)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from urae.families.family import Axis, RotaryCall

__all__ = ["FluxRotary", "exact_grid", "interleaved", "stock_frequencies"]


@dataclass(frozen=True)
class FluxRotary:
    """The tables of `FluxPosEmbed`, which is called once with the positions of text and image."""

    attribute: str = "pos_embed"
    theta_scale: float = 10.0
    """The paper's, and its published code's."""
    needs_inputs: bool = False

    def axes(self, transformer: Any) -> tuple[Axis, ...]:
        theta, (other, rows, columns) = 10000, transformer.config.axes_dims_rope
        return (
            Axis(channels=other, theta=theta, role="other"),
            Axis(channels=rows, theta=theta, role="row"),
            Axis(channels=columns, theta=theta, role="column"),
        )

    def told(self, inputs: Mapping[str, Any]) -> Any:
        """Nothing: the positions say it all."""

    def call(self, *inputs: Any, told: Any = None, **named: Any) -> RotaryCall:
        (ids,) = (*inputs, *named.values())
        return RotaryCall(positions=ids, num_tokens=ids.shape[0])

    def restored(self, positions: Tensor) -> Tensor:
        """The pipeline casts positions to bf16, which holds no odd number above 256 (4096 px)."""
        return exact_grid(positions)

    def frequencies(self, axis: Axis, *, theta_scale: float, device: Any) -> Tensor:
        return stock_frequencies(axis, theta_scale=theta_scale, device=device)

    def tables(self, angles: Tensor, factors: Tensor | float, call: RotaryCall) -> tuple[Tensor, ...]:
        return interleaved(angles, factors)


def stock_frequencies(axis: Axis, *, theta_scale: float, device: Any) -> Tensor:
    """1 / theta^(2i / channels), (channels / 2,), by the very operations of diffusers' FLUX-like embeddings: fp64,
    fp32 where the device has none."""
    dtype = torch.float32 if torch.device(device).type in ("mps", "npu") else torch.float64
    exponents = torch.arange(0, axis.channels, 2, dtype=dtype, device=device) / axis.channels
    return 1.0 / (axis.theta * theta_scale) ** exponents


def interleaved(angles: Tensor, factors: Tensor | float) -> tuple[Tensor, Tensor]:
    """cos and sin (tokens, channels), each pair of channels with the same, times `factors`, fp32."""
    if isinstance(factors, Tensor):
        factors = factors.expand(-1, angles.shape[1]).repeat_interleave(2, dim=1)
    cos, sin = (values.repeat_interleave(2, dim=1).float() for values in (angles.cos(), angles.sin()))
    return cos * factors, sin * factors


def exact_grid(ids: Tensor) -> Tensor:
    """Undo the rounding of image positions to bf16: (tokens, 3) text ids, zeros, then a grid -> fp32.

    bf16 holds no odd number above 256, so from 4128 px on neighbours share a position. The grid comes back
    from its row structure: column 0 is exact and starts each row. Ids that are no rounded grid (offset,
    scaled, several grids) are returned as they are, in fp32. Tensor operations only: nothing waits for the
    device, and a compiled graph does not break.
    """
    ids = ids.float()
    columns = ids[:, 2]
    index = torch.arange(len(columns), device=ids.device)
    is_start = columns == 0
    # The image's first token is the last zero before the first column 1; all text tokens are in front of it.
    first = (~is_start).to(torch.int8).argmax() - 1
    row = (torch.cumsum(is_start, dim=0) - 1 - first).clamp(min=0)
    start = torch.where(is_start, index, 0).cummax(dim=0).values
    grid = torch.stack([ids[:, 0], row.float(), (index - start).float()], dim=1)
    is_rounded_grid = (grid.bfloat16().float() == ids).all()
    return torch.where(is_rounded_grid, grid, ids)

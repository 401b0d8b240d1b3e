"""Krea 2's rotary positions: `rotary_emb` makes cos and sin of (0, row, column), text at (0, 0, 0)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from urae.families.family import Axis, RotaryCall
from urae.families.flux.rotary import interleaved, stock_frequencies

__all__ = ["Krea2Rotary"]


@dataclass(frozen=True)
class Krea2Rotary:
    """The tables of `Krea2RotaryPosEmbed`, a copy of FLUX.1's class, which is called once with the positions of text
    and image."""

    attribute: str = "rotary_emb"
    theta_scale: float = 5.6
    needs_inputs: bool = False

    def axes(self, transformer: Any) -> tuple[Axis, ...]:
        theta, (other, rows, columns) = transformer.config.rope_theta, transformer.config.axes_dims_rope
        return (
            Axis(channels=other, theta=theta, role="other"),
            Axis(channels=rows, theta=theta, role="row"),
            Axis(channels=columns, theta=theta, role="column"),
        )

    def told(self, inputs: Mapping[str, Any]) -> None:
        """Nothing: the positions say it all."""

    def call(self, *inputs: Any, told: Any = None, **named: Any) -> RotaryCall:
        (ids,) = (*inputs, *named.values())
        return RotaryCall(positions=ids, num_tokens=ids.shape[0])

    def restored(self, positions: Tensor) -> Tensor:
        """The pipeline makes positions in fp32 and leaves them so: they are exact."""
        return positions.float()

    def frequencies(self, axis: Axis, *, theta_scale: float, device: Any) -> Tensor:
        return stock_frequencies(axis, theta_scale=theta_scale, device=device)

    def tables(self, angles: Tensor, factors: Tensor | float, call: RotaryCall) -> tuple[Tensor, ...]:
        return interleaved(angles, factors)

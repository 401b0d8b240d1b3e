"""FLUX.2's rotary positions: `pos_embed` makes cos and sin of (frame, row, column, place in the text); the image has
rows and columns, the text has its places. Pictures to refer to stand in frames of their own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from urae.families.family import Axis, Role, RotaryCall
from urae.families.flux.rotary import FluxRotary

__all__ = ["Flux2Rotary"]

ROLES: tuple[Role, ...] = ("other", "row", "column", "other")


@dataclass(frozen=True)
class Flux2Rotary(FluxRotary):
    """The tables of `Flux2PosEmbed`, which is called twice, for the image and for the text; neither call says how many
    tokens the other has."""

    theta_scale: float = 6.7
    needs_inputs: bool = True

    def axes(self, transformer: Any) -> tuple[Axis, ...]:
        theta, channels = transformer.config.rope_theta, transformer.config.axes_dims_rope
        if len(channels) != len(ROLES):
            raise ValueError(
                f"FLUX.2 has {len(ROLES)} axes of positions, but this transformer has {len(channels)}"
            )
        return tuple(
            Axis(channels=num, theta=theta, role=role) for num, role in zip(channels, ROLES, strict=True)
        )

    def told(self, inputs: Mapping[str, Any]) -> int:
        """L, the tokens of text and image."""
        if inputs.get("kv_cache_mode") is not None or (inputs["img_ids"][..., 0] != 0).any():
            raise ValueError(
                "this call has reference pictures, whose positions no policy can scale: "
                "leave them out, or call the pipeline outside of the policy"
            )
        return int(inputs["hidden_states"].shape[1] + inputs["encoder_hidden_states"].shape[1])

    def call(self, *inputs: Any, told: Any = None, **named: Any) -> RotaryCall:
        """Without `told`, of a stream by itself."""
        (ids,) = (*inputs, *named.values())
        return RotaryCall(positions=ids, num_tokens=ids.shape[0] if told is None else told)

    def restored(self, positions: Tensor) -> Tensor:
        """The pipeline makes whole numbers and leaves them so: they are exact."""
        return positions.float()

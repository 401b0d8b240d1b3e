"""Qwen-Image's rotary positions: `pos_embed` makes complex numbers of (frame, row, column) from the image's shape.

Rows and columns are counted from the middle of the image. Text stands on the diagonal beyond its corner, from half of
the longer side on, so it moves away as the image grows: at 4096 px it begins at 128 where it was trained at 41. Under
a policy that changes positions text begins where it would at the native size, and all its frequencies stay as they are.

The stock object has tables of 4096 positions; what a policy makes has no end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from urae.families.family import Axis, RotaryCall
from urae.families.qwen_image.latents import NATIVE

__all__ = ["QwenImageRotary"]

NATIVE_OFFSET = NATIVE // 16 // 2
"""Where text begins at the native size, in tokens."""


@dataclass(frozen=True, kw_only=True)
class ShapedCall(RotaryCall):
    """The image's tokens come first, and the text's are a table by themselves."""

    num_image: int


@dataclass(frozen=True)
class QwenImageRotary:
    """The tables of `QwenEmbedRope`, which is called once, with the shapes of all samples."""

    attribute: str = "pos_embed"
    theta_scale: float = 10.0
    needs_inputs: bool = False

    def axes(self, transformer: Any) -> tuple[Axis, ...]:
        if transformer.config.use_layer3d_rope:
            raise ValueError(
                "this transformer draws an image in layers, with positions for each: expected Qwen-Image itself"
            )
        theta, (other, rows, columns) = 10000, transformer.config.axes_dims_rope
        return (
            Axis(channels=other, theta=theta, role="other"),
            Axis(channels=rows, theta=theta, role="row"),
            Axis(channels=columns, theta=theta, role="column"),
        )

    def told(self, inputs: Mapping[str, Any]) -> None:
        """Nothing: the shape says it all."""

    def call(self, *inputs: Any, told: Any = None, **named: Any) -> RotaryCall:
        shapes = inputs[0] if inputs else named["video_fhw"]
        rows, columns = _one_shape(shapes)
        device, num_text = named.get("device"), int(named["max_txt_seq_len"])
        offset = max(rows // 2, columns // 2)
        image = torch.cartesian_prod(*(_centred(num, device) for num in (1, rows, columns)))
        text = torch.arange(offset, offset + num_text, device=device)[:, None].expand(-1, 3)
        num_image = rows * columns
        return ShapedCall(
            positions=torch.cat([image.view(-1, 3), text]),
            num_tokens=num_image + num_text,
            num_image=num_image,
            is_image=torch.arange(num_image + num_text, device=device) < num_image,
            text_offset=offset,
            scale=max(1.0, offset / NATIVE_OFFSET),
        )

    def restored(self, positions: Tensor) -> Tensor:
        """They are whole numbers."""
        return positions.float()

    def frequencies(self, axis: Axis, *, theta_scale: float, device: Any) -> Tensor:
        """In fp32, by the stock object's own operations."""
        exponents = torch.arange(0, axis.channels, 2, device=device).to(torch.float32).div(axis.channels)
        return 1.0 / torch.pow(axis.theta * theta_scale, exponents)

    def tables(self, angles: Tensor, factors: Tensor | float, call: RotaryCall) -> tuple[Tensor, ...]:
        """Of the image and of the text, (tokens, pairs), complex."""
        angles = angles.float()
        table = torch.polar(torch.ones_like(angles) * factors, angles)
        return table.tensor_split([getattr(call, "num_image", len(table))])


def _centred(num: int, device: Any) -> Tensor:
    """Positions of so many rows or columns, counted from the middle; 0 for one frame."""
    return torch.arange(num, device=device) - (num - num // 2 if num > 1 else 0)


def _one_shape(shapes: Any) -> tuple[int, int]:
    """Rows and columns of the image, the same for all samples."""
    samples = shapes if isinstance(shapes, list) else [shapes]
    first = samples[0] if isinstance(samples[0], list) else [samples[0]]
    if len(first) != 1 or first[0][0] != 1:
        raise ValueError(
            "this call has reference pictures, whose positions no policy can scale: leave "
            "them out, or call the pipeline outside of the policy"
        )
    if any(sample != samples[0] for sample in samples):
        raise ValueError(
            "images of several shapes are in one call, which has positions for one: call it for each"
        )
    _, rows, columns = first[0]
    return int(rows), int(columns)

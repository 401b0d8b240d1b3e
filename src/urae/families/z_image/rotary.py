"""Z-Image's rotary positions: `rope_embedder` looks up complex numbers for (place in the text, row, column). The text
has places from 1 on, the image stands behind it with all its rows and columns, padding of the image at (0, 0, 0).

The stock object has tables of 512 rows and columns (8192 px); what a policy makes has no end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from urae.families.family import Axis, RotaryCall
from urae.families.flux.rotary import stock_frequencies
from urae.families.z_image.latents import PATCH

__all__ = ["ZImageRotary"]

PADDED = 32
"""The transformer pads text and image to multiples of so many tokens each."""


@dataclass
class Streams:
    """A call of the transformer: what its two calls of the stock object hold, the image's and then the text's."""

    images: tuple[int, ...]
    """Image tokens of each sample, padding included."""
    texts: tuple[int, ...]
    """Text tokens of each sample, padding included."""
    positions: tuple[int, ...]
    """Positions of each sample's text: the padding has some twice."""
    calls: int = 0
    """Of the stock object, so far."""

    def num_tokens(self) -> int | Tensor:
        """L for each position of the next call of the stock object."""
        lengths = (self.images, self.positions)[self.calls % 2]
        self.calls += 1
        joint = [image + text for image, text in zip(self.images, self.texts, strict=True)]
        if len(set(joint)) == 1:
            return joint[0]
        return torch.tensor(joint).repeat_interleave(torch.tensor(lengths))


@dataclass(frozen=True)
class ZImageRotary:
    """The tables of `RopeEmbedder`, a plain object that is called twice, with the positions of all samples one after
    the other."""

    attribute: str = "rope_embedder"
    theta_scale: float = 4.0
    needs_inputs: bool = True

    def axes(self, transformer: Any) -> tuple[Axis, ...]:
        theta, (other, rows, columns) = transformer.config.rope_theta, transformer.config.axes_dims
        return (
            Axis(channels=other, theta=theta, role="other"),
            Axis(channels=rows, theta=theta, role="row"),
            Axis(channels=columns, theta=theta, role="column"),
        )

    def told(self, inputs: Mapping[str, Any]) -> Streams:
        """Lengths of the two streams."""
        if isinstance(inputs["x"][0], list):
            raise ValueError(
                "this call has reference pictures, whose positions no policy can scale: "
                "leave them out, or call the pipeline outside of the policy"
            )
        texts = [len(text) for text in inputs["cap_feats"]]
        images = [frame.shape[-2] * frame.shape[-1] // PATCH**2 for frame in inputs["x"]]
        padded = _padded(texts)
        positions = [2 * whole - num for whole, num in zip(padded, texts, strict=True)]
        return Streams(images=_padded(images), texts=padded, positions=tuple(positions))

    def call(self, *inputs: Any, told: Any = None, **named: Any) -> RotaryCall:
        """Without `told`, of a stream by itself."""
        (ids,) = (*inputs, *named.values())
        num = ids.shape[0] if told is None else told.num_tokens()
        return RotaryCall(positions=ids, num_tokens=num.to(ids.device) if isinstance(num, Tensor) else num)

    def restored(self, positions: Tensor) -> Tensor:
        """The transformer makes whole numbers and leaves them so: they are exact."""
        return positions.float()

    def frequencies(self, axis: Axis, *, theta_scale: float, device: Any) -> Tensor:
        return stock_frequencies(axis, theta_scale=theta_scale, device=device)

    def tables(self, angles: Tensor, factors: Tensor | float, call: RotaryCall) -> Tensor:
        """(tokens, pairs), complex; the angles are rounded to fp32 first, as stock rounds them."""
        angles = angles.float()
        return torch.polar(torch.ones_like(angles) * factors, angles)


def _padded(lengths: Sequence[int]) -> tuple[int, ...]:
    return tuple(num + -num % PADDED for num in lengths)

"""The models that the nodes know: where each makes its positions, what these mean, and what is usual at native size.

Facts of `urae.families` and of ComfyUI's own classes; `tests/comfyui` holds them to both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

__all__ = ["FAMILIES", "FLUX_1", "FLUX_2", "QWEN_IMAGE", "SCHNELL", "SPATIAL", "Z_IMAGE", "Call", "Family"]

SPATIAL = (1, 2)
"""Rows and columns among the axes of every model here; the others are no place in the image."""


@dataclass(frozen=True, kw_only=True)
class Call:
    """What one call of the model is about."""

    text: int
    """Text tokens, as the model is given them; ComfyUI pads T5's to 256, and FLUX.2's to 512."""
    rows: int
    columns: int
    """Of the grid of image tokens."""
    dtype: torch.dtype = torch.float32
    """In which the model computes."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Family:
    """A model family as ComfyUI has it."""

    name: str
    kind: str
    """Its class in `comfy.model_base`."""
    config: Mapping[str, Any]
    """What its configuration must say; None for what must not be set."""
    embedder: str = "pe_embedder"
    """The module that makes its rotary tables, an `EmbedND`."""
    theta: int
    axes: tuple[int, ...]
    """Channels of each axis."""
    positions: Callable[[Call], list[Tensor]]
    """(tokens, axes), fp32, for each call of that module that ComfyUI may make; several where versions differ."""
    text_offset: Callable[[Call], int] = field(default=lambda call: 0)
    """Where the text begins on all axes, if that moves with the size of the image."""
    padding: int = 1
    """Text and image are padded to multiples of so many tokens each."""
    pads_prompts: bool = False
    """Whether prompts had `native_text` tokens in training, to which ComfyUI does not pad them by itself."""
    rounds: bool = False
    """Whether positions are rounded to the model's type and then kept in fp32."""
    token: int = 2
    """Latents along the side of an image token."""
    native_grid: int = 64
    native_text: int = 512
    theta_scale: float
    """Factor on theta above the native size."""
    shift: float
    """The static timestep shift that is usual."""

    def num_tokens(self, call: Call) -> int:
        """L: all tokens that attend to each other."""
        return sum(num + -num % self.padding for num in (call.text, call.rows * call.columns))

    @property
    def native_tokens(self) -> int:
        """T: L at the native size, with the longest prompt."""
        return self.native_text + self.native_grid**2

    def scale(self, call: Call) -> float:
        """How much larger than native the grid is: the geometric mean of its sides over the native one."""
        return math.sqrt(call.rows * call.columns) / self.native_grid

    def text_scale(self, call: Call) -> float:
        """How much further off the text begins than at the native size, 1 or more."""
        native = Call(text=call.text, rows=self.native_grid, columns=self.native_grid)
        return max(1.0, self.text_offset(call) / max(1, self.text_offset(native)))


def _grid(call: Call, axes: int) -> Tensor:
    """(rows x columns, axes): the row on axis 1, the column on axis 2, zeros elsewhere."""
    grid = torch.zeros(call.rows, call.columns, axes)
    grid[..., 1] = torch.arange(call.rows)[:, None]
    grid[..., 2] = torch.arange(call.columns)
    return grid.flatten(0, 1)


def _flux(call: Call) -> list[Tensor]:
    """Text at (0, 0, 0), in front of the image."""
    return [torch.cat([torch.zeros(call.text, 3), _grid(call, 3)])]


def _flux_2(call: Call) -> list[Tensor]:
    """Text counted on an axis of its own."""
    text = torch.zeros(call.text, 4)
    text[:, 3] = torch.arange(call.text)
    return [torch.cat([text, _grid(call, 4)])]


def _z_image(call: Call) -> list[Tensor]:
    """Text counted from 1 on axis 0, padding included, where the image stands behind it; the image's padding at
    (0, 0, 0). Text and image one after the other, or both at once in ComfyUI 0.3."""
    text = torch.zeros(call.text + -call.text % PADDING, 3)
    text[:, 0] = torch.arange(len(text)) + 1
    image = _grid(call, 3)
    image[:, 0] = len(text) + 1
    image = torch.cat([image, torch.zeros(-len(image) % PADDING, 3)])
    return [text, image, torch.cat([text, image])]


def _qwen_image(call: Call) -> list[Tensor]:
    """Rows and columns counted from the middle, text on the diagonal beyond the image's corner."""
    text = torch.arange(call.text)[:, None].expand(-1, 3) + _corner(call)
    middle = torch.tensor([0, call.rows // 2, call.columns // 2])
    return [torch.cat([text.float(), _grid(call, 3) - middle])]


def _corner(call: Call) -> int:
    return max(call.rows // 2, call.columns // 2)


PADDING = 32
"""Of Z-Image."""

FLUX_1 = Family(
    name="FLUX.1",
    kind="Flux",
    config={"axes_dim": [16, 56, 56], "guidance_embed": True},
    theta=10000,
    axes=(16, 56, 56),
    positions=_flux,
    pads_prompts=True,
    theta_scale=10.0,
    shift=3.0,
)
SCHNELL = replace(FLUX_1, name="FLUX.1-schnell", config={"axes_dim": [16, 56, 56]}, shift=1.0)
FLUX_2 = Family(
    name="FLUX.2",
    kind="Flux2",
    config={"axes_dim": [32, 32, 32, 32]},
    theta=2000,
    axes=(32, 32, 32, 32),
    positions=_flux_2,
    token=1,
    theta_scale=6.7,
    shift=8.597,
)
Z_IMAGE = Family(
    name="Z-Image",
    kind="Lumina2",
    config={"axes_dims": [32, 48, 48], "pad_tokens_multiple": PADDING},
    embedder="rope_embedder",
    theta=256,
    axes=(32, 48, 48),
    positions=_z_image,
    padding=PADDING,
    theta_scale=4.0,
    shift=3.0,
)
QWEN_IMAGE = Family(
    name="Qwen-Image",
    kind="QwenImage",
    config={"use_additional_t_cond": None},
    theta=10000,
    axes=(16, 56, 56),
    positions=_qwen_image,
    text_offset=_corner,
    rounds=True,
    native_grid=83,
    theta_scale=10.0,
    shift=2.303,
)
FAMILIES = (FLUX_1, SCHNELL, FLUX_2, Z_IMAGE, QWEN_IMAGE)

"""Tiled generation (MultiDiffusion): the model sees windows of its native size, and never the whole image.

At each step overlapping windows of the latents go through the transformer, each with positions of its own, and their
velocities are averaged where they overlap. Within a window everything is native, so nothing breaks and textures are
sharp; but no window knows what the others draw, so what the prompt names comes back in each. The baseline that
everybody knows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import torch
from PIL import Image
from torch import Tensor

from urae.execution import forward_replaced
from urae.families import SIDE, family_of
from urae.generation.direct import draw
from urae.generation.request import Request
from urae.resolution import ResolutionPolicy, Size, native_size, pixels_per_token

__all__ = ["Tiled", "Weighting", "window_corners", "windowed"]

Weighting = Literal["constant", "tapered"]
"""How much a window counts: the same everywhere, or less and less towards its border (sin^2)."""


@dataclass(frozen=True, kw_only=True)
class Tiled:
    """Options of tiled generation."""

    name: ClassVar[str] = "tiled"
    steps: ClassVar[int] = 28
    guidance: ClassVar[float] = 3.5

    window: int | Literal["native"] = "native"
    """Side of a window in pixels, a multiple of 16; along a shorter side of the image, that side."""
    overlap: float = 0.5
    """Share of a window, in [0, 1), that it has at least in common with the next one."""
    weighting: Weighting = "constant"
    """How velocities are averaged: constant, or tapered, which counts the middle of a window most."""
    windows_per_call: int = 4
    """Windows in one batch of the transformer; more are faster where the memory allows."""

    def __post_init__(self) -> None:
        if self.window != "native" and not _is_window(self.window):
            raise ValueError(f"window is {self.window!r}: expected 'native' or a multiple of {SIDE} pixels")
        if not 0 <= self.overlap < 1:
            raise ValueError(f"overlap is {self.overlap}: expected a share in [0, 1), such as 0.5")
        if self.weighting not in get_args(Weighting):
            raise ValueError(
                f"weighting is {self.weighting!r}: expected one of {', '.join(get_args(Weighting))}"
            )
        if not (isinstance(self.windows_per_call, int) and self.windows_per_call >= 1):
            raise ValueError(
                f"windows_per_call is {self.windows_per_call!r}: expected a whole number of 1 or more"
            )

    def policy(self, policy: ResolutionPolicy | None) -> ResolutionPolicy | None:
        """Only the shift of the given one: positions and attention are native within a window."""
        return policy and ResolutionPolicy(shift=policy.shift, exact_ids=False)

    def describe(self, *, steps: int, shift: float) -> str:
        """Nothing to tell."""
        return ""

    def draw(self, pipe: Any, request: Request, *, on_step: Callable[[], None]) -> Image.Image:
        """Fresh noise to an image at the target size, window by window."""
        with windowed(pipe, self, size=request.size):
            return draw(pipe, request, on_step)


@contextmanager
def windowed(pipe: Any, options: Tiled, *, size: Size) -> Iterator[None]:
    """Let the transformer of a stock pipeline at `size` (width, height, pixels) see windows only; undone on exit.

    Raises ValueError for a transformer that was compiled in place.
    """
    family, side = family_of(pipe), native_size(pipe) if options.window == "native" else options.window
    whole = family.latents.shape(pipe, size)
    window = family.latents.shape(pipe, (min(side, size[0]), min(side, size[1])))
    token = whole[0] * pixels_per_token(pipe) // size[1]
    corners = window_corners(whole, window, overlap=options.overlap, token=token)
    weight = window_weight(window, options.weighting)

    def by_windows(forward: Callable[..., Any]) -> Callable[..., Any]:
        def replaced(**inputs: Any) -> tuple[Tensor]:
            noisy = family.calls.latents(inputs, *whole)
            total = torch.zeros_like(noisy, dtype=torch.float32)
            counts = torch.zeros_like(total[:1, :1])
            for some in _batches(corners, options.windows_per_call):
                cut = torch.cat([_part(noisy, corner, window) for corner in some])
                output = forward(**family.calls.with_latents(inputs, cut))[0]
                velocities = family.calls.velocity_in(output, *window).float().chunk(len(some))
                for corner, velocity in zip(some, velocities, strict=True):
                    _part(total, corner, window).add_(velocity * weight.to(total))
                    _part(counts, corner, window).add_(weight.to(total))
            return (family.calls.as_output((total / counts).to(noisy.dtype)),)

        return replaced

    with forward_replaced(pipe.transformer, by_windows, what="tiled"):
        yield


def window_corners(
    whole: tuple[int, ...], window: tuple[int, ...], *, overlap: float, token: int
) -> list[tuple[int, int]]:
    """(top, left) of the fewest windows that cover the whole with at least this overlap, evenly spaced, in latents.

    `whole` and `window` are (height, width), multiples of a token's side, and so are the corners.
    """
    rows, columns = (
        _starts(length // token, side // token, overlap) for length, side in zip(whole, window, strict=True)
    )
    return [(token * row, token * column) for row in rows for column in columns]


def window_weight(window: tuple[int, ...], weighting: Weighting) -> Tensor:
    """How much each latent of a window counts, (height, width)."""
    if weighting == "constant":
        return torch.ones(window)
    rows, columns = (torch.sin(torch.pi * (torch.arange(side) + 0.5) / side) ** 2 for side in window)
    return rows[:, None] * columns


def _starts(length: int, side: int, overlap: float) -> list[int]:
    """Where windows of `side` tokens begin along `length` tokens."""
    # The smallest step is a token: with a high overlap of a small window every place is a start.
    step = max(1, math.floor(side * (1 - overlap) + 1e-9))
    gaps = math.ceil((length - side) / step)
    return [round(place * (length - side) / gaps) for place in range(gaps + 1)] if gaps else [0]


def _part(latents: Tensor, corner: tuple[int, int], window: tuple[int, ...]) -> Tensor:
    top, left = corner
    return latents[..., top : top + window[0], left : left + window[1]]


def _batches(corners: list[tuple[int, int]], num: int) -> Iterator[list[tuple[int, int]]]:
    for first in range(0, len(corners), num):
        yield corners[first : first + num]


def _is_window(side: Any) -> bool:
    return isinstance(side, int) and side > 0 and side % SIDE == 0

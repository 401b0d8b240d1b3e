"""Compiled blocks of a transformer, in training and in drawing, and the decision whether compiling pays.

Compiled is what one block of each kind computes, which all blocks of the kind then share. It is a block's `forward`,
not its call: hooks of a cache that come later stay outside, in plain Python, and what the owner compiled, whole blocks
in place, stays as it is.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from urae.execution.choices import Compile
from urae.execution.modules import (
    attributes_kept,
    has_hooks,
    is_compiled,
    is_offloaded_by_layer,
    repeated_blocks,
)
from urae.families import family_of
from urae.resolution import Size, num_tokens

__all__ = ["BY_LAYER", "compiled_blocks", "decide_to_compile"]

BY_LAYER = "weights come one layer at a time"
"""An obstacle."""


@dataclass(frozen=True, kw_only=True)
class Gain:
    """What compiling costs and saves on a kind of device, in seconds."""

    to_draw: float
    """Of compiling the blocks for calls without gradients."""
    to_train: float
    """The same with gradients."""
    saved: float
    """By a call, for each token and each of `AT_WIDTHS` of the transformer."""

    def seconds(self, *, training: bool) -> float:
        return self.to_train if training else self.to_draw


AT_WIDTHS = 57 * 3072
"""FLUX.1's blocks times their width, which the saving is proportional to."""

GAINS = {
    # PyTorch's guide to diffusers: on an H100 28 calls of 4608 tokens took 4.5 s instead of 6.7, and compiling 9.6 s
    # without an adapter.
    "cuda": Gain(to_draw=30, to_train=60, saved=17e-6),
    # The miniature on one core: a step of four images of 256 px takes 0.21 s of the CPU instead of 0.27. What compiling
    # takes there is an estimate.
    "cpu": Gain(to_draw=25, to_train=50, saved=2.6e-3),
}
"""By the kind of device; elsewhere nothing is known, and nothing compiled."""

CALLS_OF_STEP = 3
"""Calls that a training step on an image saves as much as: the backward pass has twice the work of the forward pass."""

MAX_VARIANTS = 64
"""Of a compiled block: each adapter, and each of the first sizes and numbers of windows, makes another."""


@contextmanager
def compiled_blocks(transformer: Any, enabled: bool) -> Iterator[None]:
    """Compile the blocks, or run them as they are; all is as before on exit."""
    if not enabled:
        yield
        return
    # After eight variants torch's default is to run eagerly what is said to be compiled.
    with attributes_kept(transformer), torch._dynamo.config.patch(recompile_limit=MAX_VARIANTS):
        for block in repeated_blocks(transformer):
            block.forward = torch.compile(block.forward)
        yield


def decide_to_compile(
    pipe: Any, size: Size, compile: Compile, *, calls: int, device: str, obstacle: str, training: bool = False
) -> tuple[bool, str]:
    """Whether to compile for so many transformer calls on one picture of `size`, or training steps on one image, and
    why. obstacle: why it cannot be done; "" if it can. `ValueError` where it was asked for and cannot be done."""
    gain = GAINS.get(device.partition(":")[0])
    obstacle = obstacle or _obstacle(pipe.transformer, device)
    if obstacle and compile is True:
        raise ValueError(f"compile is True where {obstacle}, and the two cannot be combined: leave it out")
    if obstacle:
        return False, obstacle
    if compile != "auto":
        return compile, "as asked"
    if gain is None:
        return False, f"what compiling gains on {device} is not known"
    saved = calls * (CALLS_OF_STEP if training else 1) * gain.saved * _work(pipe, size)
    cost = gain.seconds(training=training)
    what = "steps on an image" if training else "calls"
    return saved > cost, f"{calls} {what} would save about {saved:.0f} s, compiling takes about {cost:.0f} s"


def _obstacle(transformer: Any, device: str) -> str:
    """Why blocks cannot be compiled; empty if they can."""
    if is_offloaded_by_layer(transformer):
        return BY_LAYER
    if is_compiled(transformer):
        return "the transformer is compiled already"
    if any(has_hooks(block) for block in repeated_blocks(transformer)):
        return "the transformer's blocks have hooks already"
    if device == "cpu" and not any(map(shutil.which, (os.environ.get("CXX", "g++"), "c++", "clang++"))):
        return "there is no C++ compiler"
    return ""


def _work(pipe: Any, size: Size) -> float:
    """Tokens of a call, in transformers of FLUX.1's width and depth."""
    widths = len(repeated_blocks(pipe.transformer)) * family_of(pipe).layers.width(pipe.transformer)
    return num_tokens(pipe, size) * widths / AT_WIDTHS

"""Compiled blocks of a transformer, in training and in drawing, and the decision whether compiling pays.

Compiled is what one block of each kind computes, which all blocks of the kind then share. It is a block's `forward`,
not its call: hooks of a cache that come later stay outside, in plain Python, and what the owner compiled, whole blocks
in place, stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from urae.execution.choices import Compile
from urae.execution.memory import MemoryPlan
from urae.execution.modules import (
    attributes_kept,
    has_hooks,
    is_compiled,
    is_offloaded_by_layer,
    repeated_blocks,
)
from urae.families import family_of
from urae.resolution import Size, num_tokens

__all__ = ["compiled_blocks", "decide_to_compile"]

COMPILE_SECONDS = 30.0
"""What compiling both kinds of block takes; PyTorch's guide to diffusers has 9.6 s for FLUX.1 without an adapter."""

SAVED_SECONDS = 17e-6
"""What a compiled FLUX.1 saves per token and call: 6.7 s became 4.5 s in 28 calls of 4608 tokens on an H100 (ibid.)."""

SAVED_AT_WIDTHS = 57 * 3072
"""FLUX.1's blocks times their width, which that saving is proportional to."""

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
    pipe: Any, size: Size, compile: Compile, *, calls: int, context_parallel: int, memory: MemoryPlan
) -> tuple[bool, str]:
    """Whether to compile for so many transformer calls of pictures of `size`, and why. `ValueError` where it was asked
    for and cannot be done."""
    obstacle = "processes share a picture" if context_parallel > 1 else _obstacle(pipe.transformer, memory)
    if obstacle and compile is True:
        raise ValueError(f"compile is True where {obstacle}, which does not go together: leave it out")
    if obstacle:
        return False, obstacle
    if compile != "auto":
        return compile, "as asked"
    if not memory.device.startswith("cuda"):
        return False, "compiling pays on CUDA only"
    saved = calls * _saved_seconds(pipe, size)
    reason = f"{calls} calls would save about {saved:.0f} s, compiling takes about {COMPILE_SECONDS:.0f} s"
    return saved > COMPILE_SECONDS, reason


def _obstacle(transformer: Any, memory: MemoryPlan) -> str:
    """Why blocks cannot be compiled; empty if they can."""
    if memory.offload == "sequential" or is_offloaded_by_layer(transformer):
        return "weights come one layer at a time"
    if is_compiled(transformer):
        return "the transformer is compiled already"
    if any(has_hooks(block) for block in repeated_blocks(transformer)):
        return "the transformer's blocks have hooks already"
    return ""


def _saved_seconds(pipe: Any, size: Size) -> float:
    """By one call."""
    tokens = num_tokens(pipe, size)
    widths = len(repeated_blocks(pipe.transformer)) * family_of(pipe).layers.width(pipe.transformer)
    return SAVED_SECONDS * tokens * widths / SAVED_AT_WIDTHS

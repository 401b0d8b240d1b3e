"""What lives in the host's memory instead of a GPU's, and the time that it takes to come and go.

Copies run beside the computation, so that a pass takes as long as the longer of the two. That the overlap is
complete is presumed, and so is the share of its rate that a connection reaches; neither has been measured yet.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from urae.execution.carrier import SMALL
from urae.execution.modules import repeated_blocks, weight_bytes
from urae.execution.rounding import quantised_bytes
from urae.execution.swap import spread
from urae.planning.compute import Work
from urae.planning.gpus import Gpu
from urae.training import Recipe

__all__ = ["block_bytes", "locked_bytes", "saved_bytes", "seconds_of", "stored_bytes", "swapped_bytes"]

SHARE = 0.8
"""Of its rate that a connection reaches from and to page-locked memory; assumed."""


LOCKED = 1.5
"""Bytes of page-locked memory that torch takes for a byte that is kept there, since it takes powers of two; about."""


def locked_bytes(kept: float) -> float:
    """Of the host's memory for so many bytes of blocks and activations."""
    return LOCKED * kept


def stored_bytes(transformer: Any, recipe: Recipe) -> int:
    """Of the transformer's weights, as the recipe stores them."""
    return _stored(transformer, recipe.base_weights)[0]


def block_bytes(transformer: Any, recipe: Recipe) -> tuple[int, ...]:
    """Of the weights that each block can leave to the host, as the recipe stores them."""
    return _stored(transformer, recipe.base_weights)[1]


def swapped_bytes(sizes: tuple[int, ...], num: int) -> int:
    """That come to the GPU in a forward pass, and once more in a backward pass, if `num` blocks are swapped."""
    return sum(sizes[place] for place in spread(num, len(sizes)))


def saved_bytes(sizes: tuple[int, ...], num: int) -> int:
    """That the GPU has room for instead: all of them but for two blocks at a time."""
    swapped = [sizes[place] for place in spread(num, len(sizes))]
    return sum(swapped) - max(
        (a + b for a, b in zip(swapped, swapped[1:], strict=False)), default=sum(swapped)
    )


def seconds_of(
    work: Work, gpu: Gpu, rate: float, *, images: float, parts: int, weights: int, kept: int
) -> float:
    """Of an optimizer step on one GPU that computes at `rate` operations a second.

    work: on one image. images: of the step on this GPU, in so many parts. weights: bytes that come in each pass of
    each part. kept: bytes of activations of an image that leave in the forward pass and come in the backward pass.
    """
    link = SHARE * gpu.link * 1e9
    forward, backward = (images * num / rate for num in (work.forward, work.backward + work.again))
    weight_seconds, kept_seconds = parts * weights / link, images * kept / link
    return max(forward, weight_seconds, kept_seconds) + max(backward, weight_seconds + kept_seconds)


@lru_cache(maxsize=4)  # a plan asks for each of its options
def _stored(transformer: Any, base_weights: Any) -> tuple[int, tuple[int, ...]]:
    loaded = weight_bytes(transformer)
    sizes = [
        sum(weight.nbytes for weight in block.parameters() if weight.nbytes >= SMALL)
        for block in repeated_blocks(transformer)
    ]
    if base_weights == "as_loaded":
        return loaded, tuple(sizes)
    stored = quantised_bytes(transformer, base_weights)
    matrices = sum(
        weight.nbytes
        for block in repeated_blocks(transformer)
        for weight in block.parameters()
        if weight.dim() == 2
    )
    share = 1 - (loaded - stored) / matrices  # every matrix of a block takes as many bits a weight
    return stored, tuple(int(share * size) for size in sizes)

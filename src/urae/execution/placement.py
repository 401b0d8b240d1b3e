"""Where modules are, and how a frozen base lies there, for the duration of a block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from urae.execution.carrier import Carrier
from urae.execution.choices import BaseWeights
from urae.execution.rounding import quantised
from urae.execution.swap import swapped_blocks
from urae.families import family_of

__all__ = ["frozen_base_placed", "placed", "text_encoders_placed"]


@contextmanager
def placed(module: Any, device: torch.device) -> Iterator[None]:
    """Have a model on this device; it is back where it was on exit. None is no model."""
    before = module.device if module is not None else device
    if before == device:
        yield
        return
    module.to(device)
    try:
        yield
    finally:
        module.to(before)


@contextmanager
def text_encoders_placed(pipe: Any, device: torch.device) -> Iterator[None]:
    """Have a pipeline's text encoders on this device; they are back where they were on exit."""
    with ExitStack() as stack:
        for name in family_of(pipe).text.encoders:
            stack.enter_context(placed(getattr(pipe, name), device))
        yield


@contextmanager
def frozen_base_placed(
    transformer: Any, device: torch.device, *, weights: BaseWeights, num_swapped: int
) -> Iterator[None]:
    """Have a transformer on this device, its frozen matrices stored in this way, and those of `num_swapped` blocks in
    the host's memory; all is as it was on exit.

    Attach adapters before: what is decomposed, and what names the base, are the weights before they are rounded.
    """
    with ExitStack() as stack:
        if weights != "as_loaded":
            # On the host where most of it stays there.
            where = None if num_swapped else device
            stack.enter_context(quantised(transformer, weights, device=where))
        if num_swapped:
            stack.enter_context(swapped_blocks(transformer, num_swapped, Carrier(device)))
        else:
            stack.enter_context(placed(transformer, device))
        yield

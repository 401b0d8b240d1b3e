"""How modules keep activations for the duration of a block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["gradient_checkpointing"]


@contextmanager
def gradient_checkpointing(transformer: Any, enabled: bool) -> Iterator[None]:
    """Recompute activations in the backward pass, or keep them, as `enabled` says."""
    before = transformer.is_gradient_checkpointing
    _set_checkpointing(transformer, enabled)
    try:
        yield
    finally:
        _set_checkpointing(transformer, before)


def _set_checkpointing(transformer: Any, enabled: bool) -> None:
    if enabled:
        transformer.enable_gradient_checkpointing()
    else:
        transformer.disable_gradient_checkpointing()

"""Where modules are for the duration of a block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

__all__ = ["placed"]


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

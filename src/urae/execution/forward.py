"""Another forward in the place of a transformer's own, for as long as it is wanted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from urae.resolution.embedding import hookable

__all__ = ["forward_replaced"]


@contextmanager
def forward_replaced(
    transformer: nn.Module, wrap: Callable[[Callable[..., Any]], Callable[..., Any]], *, what: str
) -> Iterator[None]:
    """Call `wrap(forward)` in place of a module's forward; undone on exit.

    Forward hooks see the calls of the outer one. Offloaded and compiled modules, whose forward is not their class's,
    get theirs back. Raises ValueError for a module that was compiled in place, which would ignore it; `what` needs it.
    """
    hookable(transformer, what)
    own = vars(transformer).get("forward")
    transformer.forward = wrap(transformer.forward)
    try:
        yield
    finally:
        if own is None:
            del transformer.forward
        else:
            transformer.forward = own

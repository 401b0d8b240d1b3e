"""Activations in the host's memory between a block's forward pass and its backward pass.

With checkpointing a block keeps its input, and with "attention" the results of attention. At 4096 px these are
0.4 GB each, 57 times. Here they leave for the host while their block runs, and come back while the block above
is in its backward pass, so that the device holds those of two blocks. The last block's never leave, since they
are needed next. Copies are exact, and so are the gradients.

torch's checkpointing hands a block's inputs to `saved_tensors_hooks`. What its selective kind keeps does not pass
there, so two dispatch modes of our own keep the results of attention.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Collection
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint, noop_context_fn

from urae.execution.carrier import SMALL, Carrier, Copy

__all__ = ["HostCheckpointing"]


class HostCheckpointing:
    """Checkpointing that keeps what it keeps on the host.

    least: bytes of the smallest tensor that leaves the device; parameters never do.
    """

    def __init__(self, carrier: Carrier, *, least: int = SMALL) -> None:
        self._carrier, self._least = carrier, least
        self._last: Callable[[], _Luggage | None] = lambda: None

    def checkpoint(self, block: Any, *inputs: Any, keep: Collection[Any] = ()) -> Any:
        """`block(*inputs)`, computed again in the backward pass but for the results of the operations `keep`."""
        luggage = self._luggage()
        contexts = partial(_keeping, luggage, keep) if keep else noop_context_fn
        with saved_tensors_hooks(luggage.put, _taken):
            return checkpoint(block, *inputs, use_reentrant=False, context_fn=contexts)

    def _luggage(self) -> _Luggage:
        below = self._last()
        if below is not None:
            below.leave()
        luggage = _Luggage(self._carrier, self._least, self._last)
        self._last = weakref.ref(luggage)
        return luggage


class _Luggage:
    """What one block keeps. Only its pieces hold it, and only the graph holds them: nothing outlives its use."""

    def __init__(self, carrier: Carrier, least: int, below: Callable[[], _Luggage | None]) -> None:
        self.carrier, self._least, self._below = carrier, least, below
        self._pieces = weakref.WeakSet[_Piece]()
        self._called = False

    def put(self, tensor: Tensor) -> Tensor | _Piece:
        """What stands for the tensor until the backward pass."""
        if isinstance(tensor, nn.Parameter) or tensor.nbytes < self._least:
            return tensor.detach()
        piece = _Piece(self, tensor)
        self._pieces.add(piece)
        return piece

    def leave(self) -> None:
        """Let go of what has reached the host."""
        for piece in self._pieces:
            piece.leave()

    def come(self) -> None:
        """Begin to bring back what has left; once."""
        if not self._called:
            for piece in self._pieces:
                piece.come()
        self._called = True

    def needed(self) -> None:
        """Begin to bring back this block's, and that of the block below, which is needed next."""
        self.come()
        below = self._below()
        if below is not None:
            below.come()


class _Piece:
    """A tensor that leaves the device and comes back."""

    def __init__(self, luggage: _Luggage, tensor: Tensor) -> None:
        self._luggage = luggage
        self._leaving: Copy | None = luggage.carrier.to_host(tensor)
        self._host = self._leaving.target
        self._coming: Copy | None = None

    def leave(self) -> None:
        if self._leaving is not None:
            self._leaving.arrived()
            self._leaving = None

    def come(self) -> None:
        if self._leaving is None:
            self._coming = self._luggage.carrier.to_device(self._host)

    def take(self) -> Tensor:
        self._luggage.needed()
        if self._leaving is not None:
            return self._leaving.source
        if self._coming is None:  # taken before, by a backward pass that retained the graph
            self.come()
        assert self._coming is not None
        tensor, self._coming = self._coming.arrived(), None
        return tensor


def _taken(kept: Tensor | _Piece) -> Tensor:
    return kept.take() if isinstance(kept, _Piece) else kept


# --- the results of chosen operations ------------------------------------------------------------------------


def _keeping(luggage: _Luggage, operations: Collection[Any]) -> tuple[_Keep, _Reuse]:
    """Contexts of a block's forward pass and of its recomputation."""
    kept: list[list[Any]] = []
    return _Keep(luggage, operations, kept), _Reuse(operations, kept)


class _Keep(TorchDispatchMode):
    """Notes what the operations return."""

    def __init__(self, luggage: _Luggage, operations: Collection[Any], kept: list[list[Any]]) -> None:
        super().__init__()
        self._luggage, self._operations, self._kept = luggage, operations, kept

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        results = function(*args, **(kwargs or {}))
        if function in self._operations:
            self._kept.append([self._luggage.put(r) if isinstance(r, Tensor) else r for r in results])
        return results


class _Reuse(TorchDispatchMode):
    """Returns what was noted, in the same order, instead of computing it."""

    def __init__(self, operations: Collection[Any], kept: list[list[Any]]) -> None:
        super().__init__()
        self._operations, self._kept = operations, kept

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function not in self._operations:
            return function(*args, **(kwargs or {}))
        return tuple(_taken(result) for result in self._kept.pop(0))

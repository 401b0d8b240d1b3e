"""Weights of some blocks in the host's memory, copied to the device while their block runs.

The blocks lie as far apart as they can, so that each copy has the computation of several blocks to hide behind,
and the device holds two of them at most: the one that runs and the one that comes next. What comes next is what
came after the same two blocks the last time, which learns forward passes, backward passes and the turn between
them alike; a wrong guess costs time only.

Works with checkpointing: its recomputation runs the block's hooks again, and what it saves, weights included, is
on the device until the block's gradients are done. (diffusers' group offloading takes weights away when a forward
pass ends, recomputed or not, and so from under the backward pass.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.utils._python_dispatch import _disable_current_modes

from urae.execution.carrier import SMALL, Carrier, Copy
from urae.execution.modules import repeated_blocks

__all__ = ["spread", "swapped_blocks"]


@contextmanager
def swapped_blocks(transformer: Any, num: int, carrier: Carrier, *, least: int = SMALL) -> Iterator[None]:
    """Have a transformer on the carrier's device but for the frozen weights of `num` blocks; all is where it was
    on exit. Attach adapters before.

    least: bytes of the smallest weight that moves. Raises ValueError for more blocks than there are.
    """
    blocks = repeated_blocks(transformer)
    if num > len(blocks):
        raise ValueError(
            f"swap_blocks is {num}: expected at most {len(blocks)}, the blocks of this transformer"
        )
    before = transformer.device
    swap = _Swap(transformer, [blocks[index] for index in spread(num, len(blocks))], carrier, least)
    try:
        swap.place()
        yield
    finally:
        swap.undo()
        transformer.to(before)


def spread(num: int, total: int) -> list[int]:
    """`num` places out of `total`, as far apart as they can be; the last is one of them, since its weights are
    needed twice in a row and need not be copied for the second."""
    return [(place + 1) * total // num - 1 for place in range(num)]


class _Swap:
    """Blocks whose weights come and go."""

    def __init__(self, transformer: Any, blocks: list[nn.Module], carrier: Carrier, least: int) -> None:
        self._transformer, self._device = transformer, carrier.device
        self._blocks = [_Block(block, carrier, least) for block in blocks]
        self._hooks = [
            block.register_forward_pre_hook(self._before(index)) for index, block in enumerate(blocks)
        ]
        self._last_two = (-1, -1)
        self._next: dict[tuple[int, int], int] = {}

    def place(self) -> None:
        """Have everything else on the device."""
        stay = {id(weight) for block in self._blocks for weight in block.weights}
        self._transformer._apply(lambda tensor: tensor if id(tensor) in stay else tensor.to(self._device))

    def undo(self) -> None:
        """All weights back where they were, for good."""
        for hook in self._hooks:
            hook.remove()
        for block in self._blocks:
            block.undo()

    def _before(self, index: int) -> Callable[..., None]:
        def enter(module: nn.Module, inputs: Any) -> None:
            # Selective checkpointing counts operations, and a copy is none of the block's.
            with _disable_current_modes():
                self._enter(index)

        return enter

    def _enter(self, index: int) -> None:
        before, last = self._last_two
        self._next[before, last] = index
        following = self._next.get((last, index), index)
        for other, block in enumerate(self._blocks):
            if other not in (index, following):
                block.leave()
        self._blocks[index].use()
        self._blocks[following].come()
        self._last_two = (last, index)


class _Block:
    """The large frozen weights of one block: on the host to stay, on the device as copies."""

    def __init__(self, block: nn.Module, carrier: Carrier, least: int) -> None:
        self._carrier = carrier
        self.weights = [w for w in block.parameters() if not w.requires_grad and w.nbytes >= least]
        self._devices = [weight.device for weight in self.weights]
        self._hosts = []
        for weight in self.weights:  # one after the other, so that no more than one is there twice
            weight.data = carrier.to_host(weight.data).arrived()
            self._hosts.append(weight.data)
        self._copies: list[Copy] = []

    def come(self) -> None:
        """Begin to copy the weights to the device, unless they are there."""
        if not self._copies:
            self._copies = [self._carrier.to_device(host) for host in self._hosts]

    def use(self) -> None:
        """Have the weights on the device."""
        self.come()
        for weight, copy in zip(self.weights, self._copies, strict=True):
            weight.data = copy.arrived()

    def leave(self) -> None:
        """Have the weights on the host only."""
        for weight, host, copy in zip(self.weights, self._hosts, self._copies, strict=False):
            copy.arrived()  # or its memory would be used again before it is complete
            weight.data = host
        self._copies = []

    def undo(self) -> None:
        self.leave()
        for weight, device in zip(self.weights, self._devices, strict=True):
            # A copy in any case: what is page-locked must not stay so.
            weight.data = weight.data.to(device, copy=True)
        self._hosts = []

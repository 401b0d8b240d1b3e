"""Work of the processes that `torchrun` or `accelerate launch` has started.

One decides, each does its share, all learn what went wrong. Every process calls the same functions in the same order;
in a single process these are no-ops. Neighbouring processes may work as a group, which then counts as one
(`urae.execution.token_sharing`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object

from urae.errors import UraeError

__all__ = ["gathered", "group_of", "num_groups", "num_machines", "on_main", "share", "this_process"]

T = TypeVar("T")


def this_process() -> PartialState:
    """accelerate's account of it. Without an accelerator processes talk by gloo, for which accelerate wants to be
    asked; otherwise every process would think it runs alone."""
    alone, is_first = "LOCAL_RANK" not in os.environ, not PartialState._shared_state
    state = PartialState(cpu=not (alone or torch.accelerator.is_available()))
    if is_first and state.num_processes > 1:
        # One that ends at once, refused, would take away what the others still connect by.
        state.wait_for_everyone()
    return state


def num_machines() -> int:
    """That the processes are spread over, by what their launcher says."""
    together = this_process().num_processes
    return together // int(os.environ.get("LOCAL_WORLD_SIZE", together))


def on_main(make: Callable[[], T]) -> T:
    """What the main process makes, in every process; what it raises is raised in every process too."""
    state = this_process()
    if state.num_processes == 1:
        return make()
    outcome: list[tuple[T | None, Exception | None]] = [(None, None)]
    if state.is_main_process:
        try:
            outcome = [(make(), None)]
        except (ValueError, UraeError) as error:
            outcome = [(None, error)]
    made, failure = broadcast_object_list(outcome)[0]
    if failure is not None:
        raise failure
    return made


def share(items: Sequence[T], *, group_size: int = 1) -> list[T]:
    """The part of the items that this process does, or does together with its group: every num_processes-th, so that
    all shares shrink alike as work is done."""
    group, groups = group_of(group_size)
    return list(items[group::groups])


def gathered(items: list[T]) -> list[T]:
    """The items of all processes, in every process; it also waits until all have come here."""
    return items if this_process().num_processes == 1 else gather_object(items)


def group_of(size: int) -> tuple[int, int]:
    """This process's group of `size` neighbours, and the number of groups."""
    state = this_process()
    groups = num_groups(state.num_processes, size)
    return state.process_index // size, groups


def num_groups(num_processes: int, context_parallel: int) -> int:
    """Groups of `context_parallel` processes that all processes make; `ValueError` if some would be left over."""
    if context_parallel < 1 or num_processes % context_parallel:
        raise ValueError(
            f"context_parallel is {context_parallel} and {num_processes} processes were started: expected a divisor, "
            f"as under torchrun --nproc-per-node {max(context_parallel, 1)}"
        )
    return num_processes // context_parallel

"""Work of the processes that `torchrun` or `accelerate launch` has started.

One decides, each does its share, all learn what went wrong. Every process calls the same functions in the same order;
in a single process these are no-ops. Neighbouring processes may work as a group, which then counts as one
(`urae.execution.token_sharing`). Waiting has no limit of its own that work could exceed: what ends it is the loss of a
process, which `urae.execution.watch` notices.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object
from torch import Tensor

from urae.errors import UraeError
from urae.execution.watch import Watch

__all__ = [
    "PATIENCE",
    "agree",
    "first_here",
    "from_main_",
    "gathered",
    "group_of",
    "in_all",
    "num_groups",
    "num_machines",
    "on_main",
    "share",
    "this_process",
]

T = TypeVar("T")

PATIENCE = timedelta(days=7)
"""That processes wait for the slowest. A download, a lock, a data set that is read, shares of it that end hours apart:
by default ten minutes of any of these are an error."""


def this_process() -> PartialState:
    """accelerate's account of it. Without an accelerator processes talk by gloo, for which accelerate wants to be
    asked; otherwise every process would think it runs alone."""
    alone, is_first = "LOCAL_RANK" not in os.environ, not PartialState._shared_state
    state = PartialState(cpu=not (alone or torch.accelerator.is_available()), timeout=PATIENCE)
    if is_first and state.num_processes > 1:
        watch = Watch(state.process_index, state.num_processes)
        # One that ends at once, refused, would take away what the others still connect by.
        state.wait_for_everyone()
        watch.start()
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


def in_all(make: Callable[[], T]) -> T:
    """What each process makes for itself. Where that fails in some, all raise one error that names these."""
    if this_process().num_processes == 1:
        return make()
    made, failure = None, None
    try:
        made = make()
    except (ValueError, UraeError) as error:
        failure = error
    outcomes = gathered([(_name(), failure)])
    failures = [(name, error) for name, error in outcomes if error is not None]
    if failures:
        raise _one(failures, of=len(outcomes))
    return made  # type: ignore[return-value]


def first_here(make: Callable[[], T]) -> T:
    """What each process makes for itself, the first on each machine before the others, which then find on the disk what
    it has downloaded. Errors are those of `in_all`."""
    is_first = this_process().is_local_main_process
    made = in_all(lambda: make() if is_first else None)
    return in_all(lambda: made if is_first else make())  # type: ignore[return-value]


def agree(facts: Mapping[str, Any]) -> None:
    """Raise `ValueError` in every process, naming what differs, unless the facts are the same in all."""
    (first, known), *others = gathered([(_name(), dict(facts))])
    differing = {
        key: f"{key} is {known.get(key)!r} in {first} and {theirs.get(key)!r} in {name}"
        for name, theirs in reversed(others)
        for key in known.keys() | theirs.keys()
        if known.get(key) != theirs.get(key)
    }
    if differing:
        raise ValueError(
            f"the processes do not run the same: {'; '.join(differing[key] for key in sorted(differing))}. Start all "
            "with the same command, data and versions"
        )


def from_main_(tensors: Iterable[Tensor]) -> None:
    """Give each of the tensors the values that it has in the main process."""
    state = this_process()
    for tensor in tensors if state.num_processes > 1 else ():
        sent = tensor.detach().to(state.device).contiguous()
        dist.broadcast(sent, src=0)
        with torch.no_grad():
            tensor.copy_(sent)


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


def _name() -> str:
    return f"process {this_process().process_index} on {socket.gethostname()}"


def _one(failures: Sequence[tuple[str, Exception]], *, of: int) -> Exception:
    """An error for all: that of the first, with the names of those that failed unless all did alike."""
    first = failures[0][1]
    if len(failures) == of and len({str(error) for _, error in failures}) == 1:
        return first
    return type(first)("; ".join(f"{name}: {error}" for name, error in failures))

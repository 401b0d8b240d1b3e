"""Work of several processes: one decides, each does its share, all learn what went wrong.

Under `torchrun` or `accelerate launch` every process calls the same functions in the same order; in a single
process these are no-ops.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from accelerate.utils import broadcast_object_list, gather_object

from urae.errors import UraeError
from urae.execution.processes import this_process

__all__ = ["gathered", "on_main", "share"]

T = TypeVar("T")


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


def share(items: Sequence[T]) -> list[T]:
    """This process's part of the items: every num_processes-th, so that all shares shrink alike as work is
    done."""
    state = this_process()
    return list(items[state.process_index :: state.num_processes])


def gathered(items: list[T]) -> list[T]:
    """The items of all processes, in every process; it also waits until all have come here."""
    return items if this_process().num_processes == 1 else gather_object(items)

"""Asking several questions at a time, of a server that may fail and is paid for what it has begun."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from threading import Event
from typing import TypeVar

__all__ = ["settle_all"]

Task = TypeVar("Task")
Result = TypeVar("Result")


def settle_all(
    tasks: Iterable[Task],
    settle: Callable[[Task, Event], Result],
    *,
    concurrency: int,
    on_settled: Callable[[Result], object],
) -> None:
    """Call `settle(task, stopped)` for each task in threads, and `on_settled` in this one with what it returns.

    When one fails, `stopped` is set: what has begun is awaited, nothing else begins, and the error is raised.
    """
    stopped = Event()

    def settled(task: Task) -> Result:
        try:
            return settle(task, stopped)
        except BaseException:
            stopped.set()  # At once: until the main thread hears of it, others would go on asking.
            raise

    with ThreadPoolExecutor(concurrency) as pool:
        futures = [pool.submit(settled, task) for task in tasks]
        try:
            for future in as_completed(futures):
                on_settled(future.result())
        finally:
            # Requests that are under way are paid for: their answers are awaited and kept.
            stopped.set()
            pool.shutdown(wait=True, cancel_futures=True)

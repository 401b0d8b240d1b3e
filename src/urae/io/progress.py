"""Progress on the terminal: a bar where there is one, plain lines every few seconds where there is none."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Self, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

__all__ = ["Progress", "duration", "tracked"]

T = TypeVar("T")

SECONDS_BETWEEN_LINES = 10.0
"""Where the output is no terminal."""


class Progress(AbstractContextManager):
    """Counts to `total` on standard error. `done` items may be behind us already."""

    def __init__(self, description: str, *, total: int, done: int = 0, show: bool = True) -> None:
        self.description, self.total, self.done = description, total, done
        self.first, self.started, self.last_line = done, time.monotonic(), time.monotonic()
        self.console = Console(stderr=True, quiet=not show)
        counts = BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[note]}"), TimeRemainingColumn()
        self.bar = Bar(TextColumn("{task.description}"), *counts, console=self.console)
        self.task = self.bar.add_task(description, total=total, completed=done, note="")
        self.shown = ExitStack()

    def __enter__(self) -> Self:
        stream = sys.stderr
        if self.console.is_terminal:
            self.shown.enter_context(self.bar)
        self.shown.enter_context(_logged_above(stream))
        return self

    def __exit__(self, *error: object) -> None:
        self.shown.close()

    def expect(self, total: int) -> None:
        """It turns out that there are so many items."""
        self.total = total
        self.bar.update(self.task, total=total)

    def advance(self, note: str = "") -> None:
        """One more item is done; `note` is shown beside the count."""
        self.done += 1
        self.bar.update(self.task, completed=self.done, note=note)
        due = time.monotonic() - self.last_line >= SECONDS_BETWEEN_LINES or self.done == self.total
        if due and not self.console.is_terminal:
            self.last_line = time.monotonic()
            parts = (f"{self.description}: {self.done}/{self.total}", note, self._left())
            self.say(", ".join(part for part in parts if part))

    def rate(self, what: str) -> str:
        """How many a second, as a note for the item that is just done."""
        return f"{(self.done + 1 - self.first) / (time.monotonic() - self.started):.2f} {what}/s"

    def say(self, text: str) -> None:
        """A line above the bar."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def _left(self) -> str:
        seconds = (time.monotonic() - self.started) / (self.done - self.first) * (self.total - self.done)
        return f"{int(seconds) // 60}:{int(seconds) % 60:02d} left"


def duration(hours: float) -> str:
    """In words, such as 5 minutes, 1.4 hours, 60 hours (2.5 days)."""
    if hours < 1:
        minutes = max(round(60 * hours), 1)
        return f"{minutes} minute{'s' * (minutes > 1)}"
    days = f" ({hours / 24:.1f} days)" if hours >= 48 else ""
    return f"{hours:,.0f} hours{days}" if hours >= 10 else f"{hours:.1f} hours"


@contextmanager
def _logged_above(stream: object) -> Iterator[None]:
    """Let handlers of libraries that write to `stream`, as it was before the bar, write above the bar, and each message
    once: some come with every picture."""
    loggers = [logging.root, *logging.root.manager.loggerDict.values()]
    handlers = [one for logger in loggers for one in getattr(logger, "handlers", ())]
    writing = [one for one in handlers if isinstance(one, logging.StreamHandler) and one.stream is stream]
    said: set[str] = set()

    def is_new(record: logging.LogRecord) -> bool:
        text = record.getMessage()
        return text not in said and not said.add(text)  # type: ignore[func-returns-value]

    for one in writing:
        one.setStream(sys.stderr)
        one.addFilter(is_new)
    try:
        yield
    finally:
        for one in writing:
            one.setStream(stream)
            one.removeFilter(is_new)


def tracked(items: Sequence[T], description: str) -> Iterator[T]:
    """The items, with progress as they are taken."""
    with Progress(description, total=len(items)) as progress:
        for item in items:
            yield item
            progress.advance()

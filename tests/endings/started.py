"""One command in a process of its own, which is ended before its end: by a signal, or by a full disk."""

from __future__ import annotations

import contextlib
import hashlib
import multiprocessing
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from processes import CONTEXT
from small_disk import small_disk

MARK = ".urae-"
"""How the names of unfinished files begin."""
PATIENCE = 300.0
"""Seconds, for a command that takes some five."""


@dataclass(frozen=True, kw_only=True)
class Ending:
    """What happens to a command, and when."""

    name: str
    signal: int = 0
    """To the process alone where it is SIGKILL, as when memory is short; else to its group, as a terminal and a cluster
    send it."""
    write: int = 0
    """The signal comes when so many files were written under a temporary name, before the last of them gets its own."""
    amount: float = 0.0
    """Or when there is so much of files, journals and answers: see `amount_of`."""
    room: int | None = None
    """Bytes beyond which no file can grow."""

    @property
    def is_soft(self) -> bool:
        """Whether the process can do something before it ends."""
        return self.signal != signal.SIGKILL


@dataclass
class End:
    """How a command ended."""

    code: int
    said: str
    """On standard error."""
    writes: int
    """Files that got their names."""
    left: list[str]
    """What is unfinished, or locked."""


@dataclass
class Started:
    """A command under way in its folder."""

    words: Sequence[object]
    folder: Path
    ending: Ending
    progress: Callable[[], float] = field(default=lambda: 0.0)

    def end(self) -> End:
        """Wait for its end, and bring it about."""
        errors, sender = CONTEXT.Pipe(duplex=False)
        counted, counter = CONTEXT.Pipe(duplex=False)
        words = ["urae", *map(str, self.words)]
        process = CONTEXT.Process(
            target=_command, args=(words, dict(os.environ), self.folder, self.ending, sender, counter)
        )
        process.start()
        sender.close()
        counter.close()
        said, due = b"", time.monotonic() + PATIENCE
        while process.is_alive():
            assert time.monotonic() < due, f"{' '.join(words)} did not end"
            said += _read(errors.fileno(), 0.001)
            if self.ending.amount and self.progress() >= self.ending.amount:
                _send(process.pid, self.ending.signal)
                break
        while more := _read(errors.fileno(), PATIENCE):
            said += more
        process.join(PATIENCE)
        assert process.exitcode is not None, f"{' '.join(words)} did not end after the signal"
        writes = 0
        with contextlib.suppress(EOFError):
            while True:
                writes = counted.recv()
        _wait_for_the_last_of(process.pid)
        return End(process.exitcode, said.decode(), writes, unfinished(self.folder))


def _read(file: int, seconds: float) -> bytes:
    ready, _, _ = select.select([file], [], [], seconds)
    return os.read(file, 65536) if ready else b""


def _send(process: int, number: int) -> None:
    (os.kill if number == signal.SIGKILL else os.killpg)(process, number)


def _wait_for_the_last_of(group: int) -> None:
    """Helpers of the process may take a moment to notice; none may stay."""
    due = time.monotonic() + 20
    while time.monotonic() < due:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.01)
    os.killpg(group, signal.SIGKILL)
    raise AssertionError("a process that the command had started is still there")


def _command(
    words: list[str], environment: dict[str, str], folder: Path, ending: Ending, errors: Any, counter: Any
) -> None:
    os.setpgrp()
    # Where the tests run in the background of a shell, processes ignore SIGINT from their start.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(errors.fileno(), 2)
    errors.close()
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = words
    multiprocessing.set_start_method(
        None, force=True
    )  # which is not that of the process that started this one
    sys.addaudithook(_Writes(ending, counter))
    from urae.cli import app

    with contextlib.nullcontext() if ending.room is None else small_disk(ending.room):
        app()


class _Writes:
    """Counts the files that the process writes, which are complete when they are renamed, and sends the signal before a
    rename."""

    def __init__(self, ending: Ending, counter: Any) -> None:
        self.ending, self.counter = ending, counter
        self.process, self.num = os.getpid(), 0

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event != "os.rename" or MARK not in os.fspath(arguments[0]) or os.getpid() != self.process:
            return
        self.num += 1
        self.counter.send(self.num)
        if self.num == self.ending.write:
            _send(self.process, self.ending.signal)


def unfinished(folder: Path) -> list[str]:
    """Files that have no name yet, and locks."""
    return sorted(
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.name.startswith(MARK) or path.name == "lock" or path.suffix == ".lock"
    )


def files_of(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not any(part.startswith(MARK) for part in path.relative_to(folder).parts):
            yield path


def digest_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def amount_of(folder: Path, *, finished: bool = False) -> int:
    """Files and lines of lists and journals; unfinished files and locks too, unless they are left out."""
    amount = 0
    for place, _, names in os.walk(folder):  # which folders that vanish meanwhile do not trouble
        for path in (Path(place, name) for name in names):
            if not (finished and (path.name == "lock" or any(part.startswith(MARK) for part in path.parts))):
                with contextlib.suppress(FileNotFoundError):
                    amount += path.read_bytes().count(b"\n") if path.suffix == ".jsonl" else 1
    return amount

"""A file of JSON lines that only grows: what costs money is on the disk before the next thing is done with it.

A line is written by one call and synced, so a run that is killed at any moment goes on from the file: a last line
that was torn is cut off, one that lacks only its newline is kept. A lock keeps a second run out.
"""

from __future__ import annotations

import os
import threading
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Self

from urae.errors import BadFile, UraeError
from urae.io.files import force_to_disk, hold, telling
from urae.io.texts import json_line, parse_json_object

__all__ = ["Journal", "Line", "read_journal"]

Line = dict[str, Any]


class Journal(AbstractContextManager):
    """The file, open for this process alone; `lines` holds what it says, oldest first.

    start: bytes to keep, for what goes on from an earlier state; a `BadFile` if there are fewer. sync: whether each
    line is on the disk at once.
    """

    def __init__(self, path: Path | str, *, start: int | None = None, sync: bool = True) -> None:
        self.path, self.start, self.sync = Path(path), start, sync
        self.lines: list[Line] = []
        self.writing = threading.Lock()

    def __enter__(self) -> Self:
        if self.path.exists() and not self.path.is_file():
            raise ValueError(f"{self.path} is not a plain file: give another name")
        with telling(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            hold(self.file, self.path)
            self._cut()
            self.lines = read_journal(self.path)
            with telling(self.path):
                self._mend()
        except BaseException:
            os.close(self.file)
            raise
        return self

    def __exit__(self, *error: object) -> None:
        os.close(self.file)

    def append(self, line: Line) -> None:
        """In the file when this returns; `CannotWrite` or `UraeError` where it cannot be. Called from several
        threads."""
        content = json_line(line).encode()
        with self.writing, telling(self.path):
            end = os.fstat(self.file).st_size
            if os.write(self.file, content) < len(content):
                os.ftruncate(self.file, end)  # A torn line must not stand in front of a later one.
                raise UraeError(f"{self.path} cannot be written: make room on the disk and run again")
            if self.sync:
                os.fsync(self.file)
            self.lines.append(line)

    def length(self) -> int:
        """Bytes in the file, all of them on the disk."""
        with telling(self.path):
            os.fsync(self.file)
        return os.fstat(self.file).st_size

    def _cut(self) -> None:
        if self.start is not None:
            if os.fstat(self.file).st_size < self.start:
                raise BadFile(f"{self.path} has lost lines: restore it, or start again in another folder")
            os.ftruncate(self.file, self.start)

    def _mend(self) -> None:
        content = self.path.read_bytes()
        kept = _without_torn_line(content)
        os.ftruncate(self.file, len(kept))
        if kept and not kept.endswith(b"\n"):
            os.write(self.file, b"\n")
        force_to_disk(self.path.parent)


def read_journal(path: Path | str) -> list[Line]:
    """The lines of a journal, none where there is no file; without a torn last one. `BadFile` for any other that is
    no JSON object."""
    path = Path(path)
    content = _without_torn_line(path.read_bytes() if path.exists() else b"")
    lines = []
    for number, text in enumerate(content.removesuffix(b"\n").split(b"\n") if content else (), start=1):
        line = _parsed(text)
        if line is None:
            raise BadFile(f"{path}, line {number} is damaged: repair or remove it, then run again")
        lines.append(line)
    return lines


def _without_torn_line(content: bytes) -> bytes:
    whole, newline, rest = content.rpartition(b"\n")
    return whole + newline if _parsed(rest) is None else content


def _parsed(text: bytes) -> Line | None:
    try:
        return parse_json_object(text, name="a line")
    except BadFile:
        return None

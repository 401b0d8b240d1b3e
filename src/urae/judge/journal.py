"""Every answer, one JSON line each, on the disk before the next thing is done with it.

A run that is killed at any moment goes on from this file: a line is written by one call and flushed to the disk, a
last line that was torn is cut off, and a lock keeps a second run from asking the same questions.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
from collections import defaultdict
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from urae.errors import BadFile, UraeError

__all__ = ["Journal", "read_journal"]

Record = dict[str, Any]


class Journal(AbstractContextManager):
    """The file, open for appending; `answers` holds its records by the key of their question, oldest first."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.writing = threading.Lock()

    def __enter__(self) -> Self:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self.file)
            raise UraeError(
                f"another run is writing {self.path}: wait for it, or give another folder"
            ) from error
        try:
            self.answers = read_journal(self.path)
            self._mend()
        except BaseException:
            os.close(self.file)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self.file)

    def _mend(self) -> None:
        """Cut off a torn last line; end a whole one that lacks only its newline."""
        content = self.path.read_bytes()
        whole = _whole(content)
        os.ftruncate(self.file, whole)
        if whole and not content[:whole].endswith(b"\n"):
            os.write(self.file, b"\n")

    def append(self, record: Record) -> None:
        """On the disk when this returns. Called from several threads."""
        line = (json.dumps(record, ensure_ascii=True) + "\n").encode()
        with self.writing:
            start = os.fstat(self.file).st_size
            if os.write(self.file, line) != len(line):
                # A full disk: a torn line must not stand in front of a later one.
                os.ftruncate(self.file, start)
                raise UraeError(
                    f"{self.path} could not be written whole: make room on the disk and run again"
                )
            os.fsync(self.file)
            self.answers.setdefault(record["key"], []).append(record)


def read_journal(path: Path) -> dict[str, list[Record]]:
    """Records by key, none where there is no file; without a last line that was torn. `BadFile` for any other."""
    records: dict[str, list[Record]] = defaultdict(list)
    content = path.read_bytes() if path.exists() else b""
    for number, line in enumerate(content[: _whole(content)].splitlines(), 1):
        try:
            record = json.loads(line)
            records[record["key"]].append(record)
        except (ValueError, LookupError, TypeError) as error:
            raise BadFile(
                f"line {number} of {path} is no answer: repair or remove it, then run again"
            ) from error
    return dict(records)


def _whole(content: bytes) -> int:
    """Length up to the end of the last whole record."""
    end = content.rfind(b"\n") + 1
    try:
        return len(content) if isinstance(json.loads(content[end:]), dict) else end
    except ValueError:
        return end

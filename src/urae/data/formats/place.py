"""Where the bytes of an image lie: places are small, and travel to worker processes in their stead."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from urae.data.record import read_file, read_span

__all__ = ["Place", "Span", "WholeFile"]


class Place(Protocol):
    """Where the bytes of an image lie."""

    def read(self) -> bytes:
        """The bytes. Raises `OSError` where they are not there any more, or too many for an image."""


@dataclass(frozen=True)
class WholeFile:
    """A file of its own."""

    path: Path

    def read(self) -> bytes:
        return read_file(self.path)


@dataclass(frozen=True)
class Span:
    """A stretch of a file, such as a member of a tar."""

    path: Path
    start: int
    length: int

    def read(self) -> bytes:
        with self.path.open("rb") as file:
            file.seek(self.start)
            return read_span(file, self.length)

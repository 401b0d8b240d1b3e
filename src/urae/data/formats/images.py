"""An image of a data set that is not read yet: its name, its captions, and where its bytes lie.

Places are small, and travel to worker processes in the stead of the bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from urae.data.sidecar import Sidecar
from urae.io import Unreadable, read_bytes, read_span

__all__ = ["FileSpan", "ListedImage", "Place", "WholeFile"]


class Place(Protocol):
    """Where the bytes of an image lie."""

    def read(self) -> bytes:
        """The bytes. Raises `Unreadable` where they are not there any more, or too many for an image."""


@dataclass(frozen=True)
class WholeFile:
    """A file of its own."""

    path: Path

    def read(self) -> bytes:
        return read_bytes(self.path)


@dataclass(frozen=True)
class FileSpan:
    """A stretch of a file, such as a member of a tar."""

    path: Path
    start: int
    length: int

    def read(self) -> bytes:
        try:
            with self.path.open("rb") as file:
                file.seek(self.start)
                content = read_span(file, self.length)
        except OSError as error:
            raise Unreadable(self.path, "missing", error.strerror or "") from error
        if len(content) < self.length:
            raise Unreadable(self.path, "damaged", "it ends within the image")
        return content


@dataclass(frozen=True, kw_only=True)
class ListedImage:
    """One image of a data set, not read yet."""

    name: str
    """Unique in its data set."""
    place: Place
    """Where its bytes are."""
    stamp: str
    """Changes when the file that holds the bytes does."""
    sidecar: Sidecar = field(default_factory=Sidecar)
    problem: str = ""
    """Why it cannot be used, if that is known without reading the image."""

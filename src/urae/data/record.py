"""One image of a data set: where it is, what it shows, where it came from.

A record's id is the SHA-256 of the image file's bytes, so a file that changes becomes another record and what
was cached for the old one is not used for it.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import re
import struct
import zlib
from dataclasses import MISSING, dataclass, fields
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from PIL import ExifTags, Image

from urae.errors import BadFile

__all__ = ["CAPTION_KINDS", "UNREADABLE", "Record", "content_hash", "read_file", "read_span", "seen_size"]

CAPTION_KINDS = ("original", "detailed")
"""The caption that the image came with, and a detailed one by a captioning model (paper, Sec. 4.1)."""

UNREADABLE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
"""What Pillow raises on bytes that are no image."""

MOST_BYTES = 2**31
"""Of an image file: the largest picture that is decoded has less in 16 bits and four channels."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """One image and its captions."""

    id: str
    """SHA-256 of the file's bytes, 64 hexadecimal digits."""
    file: str
    """Path of the image, relative to the manifest or folder that names it."""
    size: tuple[int, int]
    """Width and height as seen upright, px."""
    captions: dict[str, str]
    """Text by kind: "original", "detailed" or both; none while the image waits for its caption."""
    source: str
    """Where the image came from: a teacher, a collection, "folder"."""
    licence: str | None = None
    """Under which the image may be used, such as "CC-BY-4.0"; None where it is not known."""
    teacher: dict[str, Any] | None = None
    """The model that made the image and its settings, seed included, as JSON values; None for a real image."""
    time: str | None = None
    """When the image arrived, ISO 8601 in UTC; None where it is not known."""

    def __post_init__(self) -> None:
        if set(self.captions) - set(CAPTION_KINDS):
            raise ValueError(
                f"{self.file}: captions are {', '.join(self.captions)}; give one or both of "
                f"{', '.join(CAPTION_KINDS)}"
            )

    @classmethod
    def of(
        cls, path: Path, *, root: Path, captions: dict[str, str], source: str, **provenance: Any
    ) -> Record:
        """The record of an image file below `root`; `provenance`: licence, teacher, time. An unreadable image is a
        `BadFile`."""
        file = path.relative_to(root).as_posix()
        return cls.of_bytes(
            path.read_bytes(), file=file, name=path, captions=captions, source=source, **provenance
        )

    @classmethod
    def of_bytes(
        cls,
        content: bytes,
        *,
        file: str,
        name: object,
        captions: dict[str, str],
        source: str,
        **provenance: Any,
    ) -> Record:
        """The record of an image that stands, or will stand, at `file`. `name` stands for it in a `BadFile`."""
        try:
            with Image.open(io.BytesIO(content)) as image:
                size = seen_size(image)
        except UNREADABLE as error:
            raise BadFile(f"{name} cannot be read as an image ({error}): replace or remove it") from error
        digest = hashlib.sha256(content).hexdigest()
        return cls(id=digest, file=file, size=size, captions=captions, source=source, **provenance)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Record:
        """The record of one manifest line, whose licence, teacher and time may be left out. Another missing key,
        or an unknown one, is a `ValueError`."""
        known = {field.name for field in fields(cls)}
        required = {field.name for field in fields(cls) if field.default is MISSING}
        if not required <= set(values) <= known:
            raise ValueError(
                f"a record has the keys {', '.join(sorted(required))} and may have "
                f"{', '.join(sorted(known - required))}, got {', '.join(sorted(values))}"
            )
        width, height = values["size"]
        record = cls(**{**values, "size": (width, height)})
        _check_names(record)
        return record


def _check_names(record: Record) -> None:
    """A manifest may be a stranger's: with other ids and files, what is read and written would lie anywhere."""
    if not re.fullmatch(r"[0-9a-f]{64}", record.id):
        raise ValueError(f"the id is {record.id!r}: expected 64 hexadecimal digits, the SHA-256 of the file")
    path = PurePosixPath(record.file)
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(f"the file is {record.file!r}: expected a path in the manifest's folder or below it")


def seen_size(image: Image.Image) -> tuple[int, int]:
    """Width and height, px, of an opened image when it is upright."""
    width, height = image.size
    # Pillow turns a TIFF itself, and says its size accordingly.
    orientation = 1 if image.format == "TIFF" else image.getexif().get(ExifTags.Base.Orientation, 1)
    return (height, width) if orientation in (5, 6, 7, 8) else (width, height)


def read_file(path: Path) -> bytes:
    """The bytes of an image file. `OSError` for one that cannot be read, or has more than any image."""
    with path.open("rb") as file:
        return read_span(file, os.fstat(file.fileno()).st_size)


def read_span(file: BinaryIO, length: int) -> bytes:
    """The next bytes of a file, if an image may have so many."""
    if length > MOST_BYTES:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    return file.read(length)


def content_hash(path: Path) -> str:
    """SHA-256 of the file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

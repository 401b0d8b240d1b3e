"""One image of a data set: where it is, what it shows, where it came from.

A record's id is the SHA-256 of the image file's bytes, so a file that changes becomes another record and what
was cached for the old one is not used for it.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import MISSING, dataclass, fields
from pathlib import Path, PurePosixPath
from typing import Any

from urae.errors import BadFile
from urae.io import field_of, parse_json_object, read_bytes, size_of, typed

__all__ = ["CAPTION_KINDS", "Record", "suffix_of"]

CAPTION_KINDS = ("original", "detailed")
"""The caption that the image came with, and a detailed one by a captioning model, as in the paper's published code."""

SUFFIXES = {b"\xff\xd8": ".jpg", b"\x89P": ".png", b"RI": ".webp", b"II": ".tif", b"MM": ".tif"}
"""By the first two bytes of a picture. What else can be read is AVIF."""


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
        """The record of an image file below `root`; `provenance`: licence, teacher, time. Raises `Unreadable`."""
        file = path.relative_to(root).as_posix()
        return cls.of_bytes(
            read_bytes(path), file=file, name=path, captions=captions, source=source, **provenance
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
        """The record of an image that stands, or will stand, at `file`. `name` stands for it in an `Unreadable`."""
        size, digest = size_of(content, name=name), hashlib.sha256(content).hexdigest()
        return cls(id=digest, file=file, size=size, captions=captions, source=source, **provenance)

    @classmethod
    def parse(cls, line: str, *, name: str) -> Record:
        """The record of one line of a manifest, whose place is `name`. Raises `BadFile`."""
        try:
            return cls.from_dict(parse_json_object(line, name="the line"))
        except (BadFile, ValueError) as error:
            raise BadFile(f"{name} is not a record: {error}") from error

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Record:
        """The record of these values, whose licence, teacher and time may be left out. Another missing key, an unknown
        one, or one that leads out of the manifest's folder, is a `ValueError`, a value of another type a `BadFile`."""
        known = {field.name for field in fields(cls)}
        required = {field.name for field in fields(cls) if field.default is MISSING}
        if not required <= set(values) <= known:
            raise ValueError(
                f"a record has the keys {', '.join(sorted(required))} and may have "
                f"{', '.join(sorted(known - required))}, got {', '.join(sorted(values))}"
            )
        _check_types(values)
        width, height = values["size"]
        record = cls(**{**values, "size": (width, height)})
        _check_names(record)
        return record


def suffix_of(content: bytes) -> str:
    """The ending for the name of a picture that can be read."""
    return SUFFIXES.get(content[:2], ".avif")


def _check_types(values: dict[str, Any]) -> None:
    for key in ("id", "file", "source"):
        field_of(values, key, str, name="the record")
    for key, kind in (("licence", str), ("time", str), ("teacher", dict)):
        if values.get(key) is not None:
            field_of(values, key, kind, name="the record")
    for text in field_of(values, "captions", dict, name="the record").values():
        typed(text, str, name="a caption")
    sides = values["size"]
    if not (
        isinstance(sides, list | tuple) and len(sides) == 2 and all(type(s) is int and s > 0 for s in sides)
    ):
        raise ValueError(f"the size is {sides!r}: expected width and height, px")


def _check_names(record: Record) -> None:
    """A manifest may be a stranger's: with other ids and files, what is read and written would lie anywhere."""
    if not re.fullmatch(r"[0-9a-f]{64}", record.id):
        raise ValueError(f"the id is {record.id!r}: expected 64 hexadecimal digits, the SHA-256 of the file")
    path = PurePosixPath(record.file)
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(f"the file is {record.file!r}: expected a path in the manifest's folder or below it")

"""The files of a cache, in a folder here or in shards anywhere.

Both give the entries by name and the texts beside them ("cache.json", "records.jsonl"). An entry is a
safetensors file whose metadata hold a key, the hash of all that it was made from, and a checksum of what is
in it. Shards are tar files and an index of where each entry lies in them (`urae.data.shards` writes them), so that an
entry is read by a request for its bytes alone.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from fsspec.core import url_to_fs
from torch import Tensor

from urae.errors import BadFile, MissingExtra
from urae.io import (
    field_of,
    parse_json_object,
    parse_weights,
    read_header,
    read_text,
    typed,
    write_text,
    write_weights,
)

__all__ = ["INDEX", "Folder", "Shards", "Store", "file_system", "is_url", "open_store", "parsed", "part_name"]

INDEX = "index.json"
"""Of shards, written last."""
MOST_BYTES = 2**34
"""Of an entry; one of an image of 8192 px has some 2^26."""


class Store(Protocol):
    """The files of a cache, to be read."""

    @property
    def path(self) -> str | Path:
        """The folder, or the URL."""

    def entry(self, name: str) -> bytes:
        """An entry's file. A missing one is a `BadFile`."""

    def text(self, name: str) -> str | None:
        """A text beside the entries; None if it is not there."""


@dataclass(frozen=True)
class Folder:
    """A cache in a folder: the texts, and `entries/`."""

    path: Path

    def entry(self, name: str) -> bytes:
        try:
            return self.file(name).read_bytes()
        except FileNotFoundError as error:
            raise BadFile(f"{self.file(name)} is missing: cache the data again") from error

    def text(self, name: str) -> str | None:
        return read_text(self.path / name) if (self.path / name).is_file() else None

    def file(self, name: str) -> Path:
        """Where an entry lies or will lie."""
        return self.path / "entries" / name

    def write_entry(self, name: str, tensors: Mapping[str, Tensor], *, key: str) -> None:
        """Write an entry, complete or not at all."""
        # In one value: the same contents shall be the same bytes, however the metadata are ordered.
        write_weights(self.file(name), tensors, {"key": f"{key} {_checksum(tensors)}"})

    def write_text(self, name: str, text: str) -> None:
        """Write a text, complete or not at all."""
        write_text(self.path / name, text)

    def holds(self, name: str, key: str, *, verify: bool) -> bool:
        """Whether the entry is there and has this key; with `verify`, whether its contents are whole too."""
        if not self.file(name).is_file():
            return False
        try:
            if verify:
                return parsed(self.entry(name), name)[1] == key
            return _stamp(read_header(self.file(name)).metadata)[0] == key
        except BadFile:
            return False  # as one that is not there: it is made anew


class ShardSpan(NamedTuple):
    """Where an entry lies in the shards."""

    shard: str
    start: int
    length: int


@dataclass(frozen=True)
class Shards:
    """A cache in shards."""

    path: str
    """URL of their folder."""

    def entry(self, name: str) -> bytes:
        if name not in self._spans:
            raise BadFile(f"{name} is not in the shards of {self.path}: write them again")
        shard, start, length = self._spans[name]
        system, folder = file_system(self.path)
        try:
            data = system.cat_file(f"{folder}/{shard}", start=start, end=start + length)
        except FileNotFoundError as error:
            raise BadFile(f"{shard} is missing in {self.path}: write the shards again") from error
        if len(data) != length:
            raise BadFile(f"{shard} in {self.path} ends within {name}: write the shards again")
        return data

    def text(self, name: str) -> str | None:
        system, folder = file_system(self.path)
        try:
            return system.cat_file(f"{folder}/{name}").decode("utf-8")
        except FileNotFoundError:
            return None

    @cached_property
    def _spans(self) -> dict[str, ShardSpan]:
        text, name = self.text(INDEX), f"the index of {self.path}"
        if text is None:
            raise BadFile(f"{self.path} has no index: write the shards again")
        entries = field_of(parse_json_object(text, name=name), "entries", dict, name=name)
        return {entry: _span(value, f"{entry} in {name}") for entry, value in entries.items()}


def is_url(path: str | Path) -> bool:
    """Whether a path names shards behind fsspec, such as s3://bucket/cache, rather than a folder here."""
    return "://" in str(path)


def open_store(path: str | Path) -> Store:
    """The files of a cache in a folder, or in shards at a URL."""
    return Shards(str(path)) if is_url(path) else Folder(Path(path))


def file_system(url: str) -> tuple[Any, str]:
    """The file system and the path in it. Asked for at each use, because fsspec keeps one for each process and a
    loader's workers are processes of their own."""
    try:
        return url_to_fs(url)
    except ImportError as error:
        raise MissingExtra(f"{url} needs a package: {error}") from error


def part_name(record: str, part: str) -> str:
    """Name of the entry of one part of the record with this id: "latents" or a kind of caption."""
    return f"{record}.{part}.safetensors"


def parsed(data: bytes, name: str) -> tuple[dict[str, Tensor], str]:
    """The tensors and the key of an entry's file. One that is not what was written is a `BadFile` that names
    it."""
    try:
        weights = parse_weights(data, name="it")
    except BadFile as error:
        raise BadFile(f"{name} is damaged ({error}): cache the data again") from error
    key, _, checksum = _stamp(weights.metadata)
    if checksum != _checksum(weights.tensors):
        raise BadFile(f"{name} is damaged (its checksum does not fit): cache the data again")
    return weights.tensors, key


def _span(value: Any, name: str) -> ShardSpan:
    if len(typed(value, list, name=name)) != 3:
        raise BadFile(f"{name} is {value}: expected a shard, a start and a length")
    span = ShardSpan(
        *(typed(part, kind, name=name) for part, kind in zip(value, (str, int, int), strict=True))
    )
    if "/" in span.shard or span.start < 0 or not 0 <= span.length <= MOST_BYTES:
        raise BadFile(f"{name} is {value}, where no entry lies: write the shards again")
    return span


def _stamp(metadata: Mapping[str, str]) -> tuple[str, str, str]:
    """Key, space and checksum; all empty in a file that is not of a cache."""
    return metadata.get("key", "").partition(" ")


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    # Against accidents, not against attackers: CRC-32 reads gigabytes a second.
    total = 0
    for name, tensor in sorted(tensors.items()):
        total = zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), total)
        total = zlib.crc32(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data, total)
    return f"{total:08x}"

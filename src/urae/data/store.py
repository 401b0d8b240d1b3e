"""Where a cache's bytes lie: a folder here, or shards anywhere.

Both give the entries by name and the texts beside them ("cache.json", "records.jsonl"). An entry is a
safetensors file whose metadata hold a key, the hash of all that it was made from, and a checksum of what is
in it.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from urae.errors import BadFile

__all__ = ["Folder", "Store", "parsed", "part_name", "serialized"]


class Store(Protocol):
    """The files of a cache, to be read."""

    @property
    def path(self) -> str | Path:
        """The folder, or the URL."""

    def entry(self, name: str) -> bytes:
        """An entry's file. A missing one is a `BadFile`."""

    def text(self, name: str) -> str:
        """A text beside the entries; a `FileNotFoundError` if it is not there."""


@dataclass(frozen=True)
class Folder:
    """A cache in a folder: the texts, and `entries/`."""

    path: Path

    def entry(self, name: str) -> bytes:
        try:
            return self.file(name).read_bytes()
        except FileNotFoundError as error:
            raise BadFile(f"{self.file(name)} is missing: cache the data again") from error

    def text(self, name: str) -> str:
        return (self.path / name).read_text(encoding="utf-8")

    def file(self, name: str) -> Path:
        """Where an entry lies or will lie."""
        return self.path / "entries" / name

    def write_entry(self, name: str, data: bytes) -> None:
        """Write an entry, complete or not at all."""
        temporary = self.file(name).with_suffix(".tmp")
        temporary.write_bytes(data)
        os.replace(temporary, self.file(name))

    def write_text(self, name: str, text: str) -> None:
        """Write a text, complete or not at all."""
        temporary = self.path / f"{name}.tmp"
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, self.path / name)

    def holds(self, name: str, key: str, *, verify: bool) -> bool:
        """Whether the entry is there and has this key; with `verify`, whether its contents are whole too."""
        try:
            return (parsed(self.entry(name), name)[1] if verify else self._key(name)) == key
        except BadFile:
            return False  # as one that is not there: it is made anew

    def _key(self, name: str) -> str:
        try:
            with safe_open(self.file(name), framework="pt") as opened:
                return _stamp(opened.metadata())[0]
        except (SafetensorError, FileNotFoundError) as error:
            raise BadFile(f"{self.file(name)} is missing or damaged ({error})") from error


def part_name(record: str, part: str) -> str:
    """Name of the entry of one part of the record with this id: "latents" or a kind of caption."""
    return f"{record}.{part}.safetensors"


def serialized(tensors: Mapping[str, Tensor], *, key: str) -> bytes:
    """An entry's file."""
    whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
    # In one value: safetensors writes several in any order, and the same contents shall be the same bytes.
    return safetensors.torch.save(whole, metadata={"key": f"{key} {_checksum(whole)}"})


def parsed(data: bytes, name: str) -> tuple[dict[str, Tensor], str]:
    """The tensors and the key of an entry's file. One that is not what was written is a `BadFile` that names
    it."""
    try:
        tensors = dict(sorted(safetensors.torch.load(data).items()))  # safetensors has no order
        length = int.from_bytes(data[:8], "little")
        key, _, checksum = _stamp(json.loads(data[8 : 8 + length]).get("__metadata__"))
    except (SafetensorError, ValueError) as error:
        raise BadFile(f"{name} is damaged ({error}): cache the data again") from error
    if checksum != _checksum(tensors):
        raise BadFile(f"{name} is damaged (its checksum does not fit): cache the data again")
    return tensors, key


def _stamp(metadata: Mapping[str, str] | None) -> tuple[str, str, str]:
    """Key, space and checksum; all empty in a file that is not of a cache."""
    return (metadata or {}).get("key", "").partition(" ")


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    # Against accidents, not against attackers: CRC-32 reads gigabytes a second.
    total = 0
    for name, tensor in sorted(tensors.items()):
        total = zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), total)
        total = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data, total)
    return f"{total:08x}"

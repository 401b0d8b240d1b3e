"""Caches in shards, wherever fsspec reaches: for runs that outgrow one machine.

`write_shards` packs the entries of a cache into tar files of about a gigabyte, and an index of where each entry
lies in them. An entry is then read by a request for its bytes alone, so shards are trained on in the same order
as the folder they came from, to the same bits, with nothing fetched that is not used. The files of a record
follow each other under one stem, as WebDataset has it, so other tools can stream the shards too.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fsspec.core import url_to_fs

from urae.data.store import Folder, Store, part_name
from urae.errors import BadFile, MissingExtra, StaleCache
from urae.execution import gathered, on_main, share
from urae.io import tracked

if TYPE_CHECKING:
    from urae.data.cache_format import Cache

__all__ = ["Shards", "is_url", "open_store", "write_shards"]

SHARD_BYTES = 1 << 30


def is_url(path: str | Path) -> bool:
    """Whether a path names shards behind fsspec, such as s3://bucket/cache, rather than a folder here."""
    return "://" in str(path)


def open_store(path: str | Path) -> Store:
    """The files of a cache in a folder, or in shards at a URL."""
    return Shards(str(path)) if is_url(path) else Folder(Path(path))


@dataclass(frozen=True)
class Shards:
    """A cache in shards."""

    path: str
    """URL of their folder."""

    def entry(self, name: str) -> bytes:
        shard, start, length = self._places.get(name, ("", 0, 0))
        if not shard:
            raise BadFile(f"{name} is not in the shards of {self.path}: write them again")
        system, folder = _system(self.path)
        data = system.cat_file(f"{folder}/{shard}", start=start, end=start + length)
        if len(data) != length:
            raise BadFile(f"{shard} in {self.path} ends within {name}: write the shards again")
        return data

    def text(self, name: str) -> str:
        system, folder = _system(self.path)
        return system.cat_file(f"{folder}/{name}").decode("utf-8")

    @cached_property
    def _places(self) -> dict[str, tuple[str, int, int]]:
        try:
            index = json.loads(self.text("index.json"))["entries"]
        except FileNotFoundError as error:
            raise BadFile(f"{self.path} has no index: write the shards again") from error
        return {name: (shard, start, length) for name, (shard, start, length) in index.items()}


@dataclass(frozen=True, kw_only=True)
class _Shard:
    """One tar file to be."""

    name: str
    lengths: dict[str, int]
    """Bytes of each entry, in their order."""

    def places(self) -> dict[str, int]:
        """Where the bytes of each entry begin."""
        start, found = 0, {}
        for name, length in self.lengths.items():
            found[name] = start + tarfile.BLOCKSIZE  # a header before each
            start = found[name] + _blocks(length)
        return found

    @property
    def num_bytes(self) -> int:
        """Of the whole file: two empty blocks end it, and it is filled up to whole records."""
        end = sum(tarfile.BLOCKSIZE + _blocks(length) for length in self.lengths.values())
        return -(-(end + 2 * tarfile.BLOCKSIZE) // tarfile.RECORDSIZE) * tarfile.RECORDSIZE


def write_shards(made: Cache, url: str, *, shard_bytes: int = SHARD_BYTES) -> int:
    """Pack a cache in a folder into shards at `url`, and return their number; `open_cache(url)` reads them.

    Under `torchrun` each process writes its share. Stopped and called again, it writes what is not there.
    Raises `StaleCache` if another cache's shards are at `url`.
    """
    system, folder = _system(url)
    on_main(lambda: _claim(system, folder, url, made.digest))
    shards = list(_layout(made, shard_bytes))
    missing = [
        shard for shard in share(shards) if not _is_there(system, f"{folder}/{shard.name}", shard.num_bytes)
    ]
    for shard in tracked(missing, f"writing {len(missing)} shards to {url}"):
        _write(system, f"{folder}/{shard.name}", _tar(made, shard))
    gathered([0])  # the index comes when all are there
    on_main(lambda: _write_index(system, folder, made, shards))
    return len(shards)


def _layout(made: Cache, shard_bytes: int) -> Iterator[_Shard]:
    """The records in their order, as many to a shard as it holds, at least one."""
    folder = made.store
    assert isinstance(folder, Folder)
    lengths: dict[str, int] = {}
    number = 0
    for entry in made.entries:
        names = [part_name(entry.record.id, part) for part in entry.keys]
        lengths |= {name: folder.file(name).stat().st_size for name in names}
        if sum(lengths.values()) >= shard_bytes:
            yield _Shard(name=_shard_name(number, made), lengths=lengths)
            lengths, number = {}, number + 1
    if lengths:
        yield _Shard(name=_shard_name(number, made), lengths=lengths)


def _shard_name(number: int, made: Cache) -> str:
    # With the digest, the shards of an older cache are not taken for this one's.
    return f"{made.digest[:12]}-{number:06d}.tar"


def _tar(made: Cache, shard: _Shard) -> memoryview:
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, length in shard.lengths.items():
            about = tarfile.TarInfo(name)
            about.size = length
            tar.addfile(about, io.BytesIO(made.store.entry(name)))
    assert written.tell() == shard.num_bytes
    return written.getbuffer()


def _write_index(system: Any, folder: str, made: Cache, shards: list[_Shard]) -> None:
    entries = {
        name: (shard.name, start, shard.lengths[name])
        for shard in shards
        for name, start in shard.places().items()
    }
    for name in ("cache.json", "records.jsonl"):
        _write(system, f"{folder}/{name}", made.store.text(name).encode("utf-8"))
    index = {"digest": made.digest, "entries": entries}
    _write(system, f"{folder}/index.json", json.dumps(index).encode("utf-8"))


def _claim(system: Any, folder: str, url: str, digest: str) -> None:
    if not system.exists(f"{folder}/index.json"):
        system.makedirs(folder, exist_ok=True)
    elif json.loads(system.cat_file(f"{folder}/index.json"))["digest"] != digest:
        raise StaleCache(f"{url} holds the shards of another cache: choose another URL or delete them")


def _is_there(system: Any, path: str, num_bytes: int) -> bool:
    return system.exists(path) and system.size(path) == num_bytes


def _write(system: Any, path: str, data: bytes | memoryview) -> None:
    # A transaction's file appears complete, by renaming or by what the object store does.
    with system.transaction, system.open(path, "wb") as file:
        file.write(data)


def _system(url: str) -> tuple[Any, str]:
    """The file system and the path in it. Asked for at each use, because fsspec keeps one for each process and a
    loader's workers are processes of their own."""
    try:
        return url_to_fs(url)
    except ImportError as error:
        raise MissingExtra(f"{url} needs a package: {error}") from error


def _blocks(length: int) -> int:
    return -(-length // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE

"""Writing a cache as shards, wherever fsspec reaches: for runs that outgrow one machine.

`write_shards` packs the entries of a cache into tar files of about a gigabyte, and an index of where each entry
lies in them. Shards are trained on in the same order as the folder they came from, to the same bits, with nothing
fetched that is not used. The files of a record follow each other under one stem, as WebDataset has it, so other tools
can stream the shards too.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from urae.data.cache_files import INDEX, Folder, file_system, part_name
from urae.data.cache_format import Cache
from urae.errors import StaleCache
from urae.execution import gathered, on_main, share
from urae.io import parse_json_object, tracked

__all__ = ["write_shards"]

SHARD_BYTES = 1 << 30


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
    system, folder = file_system(url)
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
        _write(system, f"{folder}/{name}", (made.store.text(name) or "").encode("utf-8"))
    index = {"digest": made.digest, "entries": entries}
    _write(system, f"{folder}/{INDEX}", json.dumps(index).encode("utf-8"))


def _claim(system: Any, folder: str, url: str, digest: str) -> None:
    if not system.exists(f"{folder}/{INDEX}"):
        system.makedirs(folder, exist_ok=True)
        return
    index = parse_json_object(system.cat_file(f"{folder}/{INDEX}"), name=f"the index of {url}")
    if index.get("digest") != digest:
        raise StaleCache(f"{url} holds the shards of another cache: choose another URL or delete them")


def _is_there(system: Any, path: str, num_bytes: int) -> bool:
    return system.exists(path) and system.size(path) == num_bytes


def _write(system: Any, path: str, data: bytes | memoryview) -> None:
    # A transaction's file appears complete, by renaming or by what the object store does.
    with system.transaction, system.open(path, "wb") as file:
        file.write(data)


def _blocks(length: int) -> int:
    return -(-length // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE

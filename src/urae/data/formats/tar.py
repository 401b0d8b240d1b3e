"""WebDataset shards: plain tar files in which the files of a sample follow each other under one stem.

The standard library's `tarfile` reads and writes them; of the `webdataset` package only its streaming loader
would be left, and images here are read by their offset instead, by any process in any order.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from urae.data.formats.place import Place, Span
from urae.data.manifest import FOREIGN_SUFFIXES, IMAGE_SUFFIXES
from urae.data.record import Record
from urae.data.sidecar import Sidecar, parse_sidecar, sidecar_of
from urae.errors import BadFile

__all__ = ["Member", "list_members", "write_tars"]

SIDECAR_BYTES = 2**20
"""No caption is longer."""


@dataclass(frozen=True, kw_only=True)
class Member:
    """An image of a shard."""

    name: str
    place: Place
    sidecar: Sidecar = field(default_factory=Sidecar)
    problem: str = ""


@dataclass
class _Sample:
    """The members of one stem."""

    stem: str
    images: list[tarfile.TarInfo] = field(default_factory=list)
    texts: dict[str, bytes] = field(default_factory=dict)
    problem: str = ""


def list_members(shard: Path) -> Iterator[Member]:
    """The images of a shard with their sidecars. A shard that is damaged ends with a member that says so."""
    with shard.open("rb") as file:
        try:
            with tarfile.open(fileobj=file, mode="r:") as tar:
                for sample in _samples(tar):
                    yield from _members(sample, shard)
        except (tarfile.TarError, OSError, EOFError, ValueError) as error:
            place = Span(shard, 0, 0)
            yield Member(
                name="(the rest)", place=place, problem=f"{shard} is damaged as a tar file ({error})"
            )


def write_tars(samples: Iterable[tuple[Record, bytes]], out: Path, *, shard_bytes: int) -> None:
    """Shards `000000.tar`, ... of up to `shard_bytes` of images. The same samples give the same bytes."""
    with ExitStack() as opened:
        shard, room = -1, 0
        for index, (record, content) in enumerate(samples):
            if len(content) > room:
                opened.close()
                shard, room = shard + 1, shard_bytes
                tar = opened.enter_context(tarfile.open(out / f"{shard:06d}.tar", "w"))
            stem = f"{index:08d}"
            _add(tar, stem + Path(record.file).suffix.lower(), content)
            _add(tar, f"{stem}.json", json.dumps(sidecar_of(record), ensure_ascii=False).encode())
            room -= len(content)


def _samples(tar: tarfile.TarFile) -> Iterator[_Sample]:
    sample = _Sample("")
    for info in tar:
        if not info.isfile():
            continue
        path = PurePosixPath(info.name)
        # WebDataset's rule: the stem ends at the first dot of the file's name.
        stem, _, ending = path.name.partition(".")
        stem, suffix = (path.parent / stem).as_posix(), f".{ending}".lower()
        if stem != sample.stem:
            yield sample
            sample = _Sample(stem)
        _collect(sample, suffix, info, tar)
    yield sample


def _collect(sample: _Sample, suffix: str, info: tarfile.TarInfo, tar: tarfile.TarFile) -> None:
    if suffix.endswith(IMAGE_SUFFIXES + FOREIGN_SUFFIXES):
        sample.images.append(info)
    elif suffix in (".json", ".txt"):
        if info.size > SIDECAR_BYTES:
            sample.problem = f"{info.name} has {info.size} bytes: expected a caption"
            return
        opened = tar.extractfile(info)
        assert opened is not None
        sample.texts[suffix] = opened.read()


def _members(sample: _Sample, shard: Path) -> Iterator[Member]:
    for info in sample.images:
        place = Span(shard, info.offset_data, info.size)
        try:
            sidecar = parse_sidecar(sample.texts, name=f"{shard}/{sample.stem}")
            yield Member(name=info.name, place=place, sidecar=sidecar, problem=sample.problem)
        except BadFile as error:
            yield Member(name=info.name, place=place, problem=str(error))


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))

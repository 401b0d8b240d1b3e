"""A data set as a list of items: names, captions, and where the bytes of each image lie.

Nothing is unpacked and no image is read: an item of a tar shard knows its offset, one of a `datasets` folder its
row, so that worker processes read what they judge themselves, in any order.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from urae.data.formats.arrow import is_arrow, list_rows
from urae.data.formats.place import Place, WholeFile
from urae.data.formats.tar import list_members
from urae.data.manifest import FOREIGN_SUFFIXES, IMAGE_SUFFIXES, MANIFEST, read_manifest
from urae.data.sidecar import Sidecar, read_sidecar
from urae.errors import BadFile

__all__ = ["Item", "list_items", "other_files"]

FACTS = ("source", "licence", "teacher", "time")


@dataclass(frozen=True, kw_only=True)
class Item:
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


def list_items(source: str | Path) -> Iterator[Item]:
    """The items of a folder, manifest, shard, folder of shards, or `datasets` folder, always in the same order.

    Images without captions are listed as well. What cannot be used is listed with its problem.
    """
    path = Path(source)
    if path.is_dir():
        return _folder(path)
    if path.suffix == ".tar" and path.is_file():
        return _shard(path, name="")
    if path.suffix == ".jsonl" and path.is_file():
        return _manifest(path)
    raise ValueError(
        f"no data set at {source}: expected a folder of images or shards, a shard (.tar), a manifest (.jsonl) or a "
        "folder that `datasets` saved"
    )


def other_files(source: str | Path) -> Counter[str]:
    """How many files in a folder of images are neither images nor captions, by ending. A folder with a list of its
    own has none."""
    path = Path(source)
    if not path.is_dir() or is_arrow(path) or (path / MANIFEST).is_file():
        return Counter()
    known = (*IMAGE_SUFFIXES, *FOREIGN_SUFFIXES, ".json", ".txt", ".tar")
    endings = (file.suffix.lower() for file in path.rglob("*") if file.is_file())
    return Counter(ending or "(none)" for ending in endings if ending not in known)


def _folder(folder: Path) -> Iterator[Item]:
    if is_arrow(folder):
        return _rows(folder)
    if (folder / MANIFEST).is_file():
        return _manifest(folder / MANIFEST)
    return _files(folder)


def _files(folder: Path) -> Iterator[Item]:
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.suffix == ".tar":
            yield from _shard(path, name=f"{name}/")
        elif path.suffix.lower() in IMAGE_SUFFIXES + FOREIGN_SUFFIXES and not path.is_dir():
            yield _file(path, name)


def _file(path: Path, name: str) -> Item:
    try:
        return Item(name=name, place=WholeFile(path), stamp=_stamp(path), sidecar=read_sidecar(path))
    except (BadFile, OSError) as error:
        problem = str(error) if isinstance(error, BadFile) else f"{path} cannot be opened ({error.strerror})"
        return Item(name=name, place=WholeFile(path), stamp="", problem=problem)


def _stamp(path: Path) -> str:
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise BadFile(f"{path} is no regular file")
    return f"{status.st_size}-{status.st_mtime_ns}"


def _manifest(path: Path) -> Iterator[Item]:
    for record in read_manifest(path):
        facts = {name: getattr(record, name) for name in FACTS if getattr(record, name)}
        file = path.parent / record.file
        sidecar = Sidecar(captions=record.captions, facts=facts)
        yield Item(name=record.file, place=WholeFile(file), stamp=record.id, sidecar=sidecar)


def _shard(path: Path, *, name: str) -> Iterator[Item]:
    stamp = _stamp(path)
    for member in list_members(path):
        yield Item(
            name=name + member.name,
            place=member.place,
            stamp=stamp,
            sidecar=member.sidecar,
            problem=member.problem,
        )


def _rows(folder: Path) -> Iterator[Item]:
    for row in list_rows(folder):
        yield Item(name=row.name, place=row.place, stamp=row.stamp, sidecar=row.sidecar, problem=row.problem)

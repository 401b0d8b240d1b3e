"""A data set as a list of images: names, captions, and where the bytes of each lie.

Nothing is unpacked and no image is read: one of a tar shard knows its offset, one of a `datasets` folder its
row, so that worker processes read what they judge themselves, in any order.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from urae.data.formats.arrow import is_arrow, list_rows
from urae.data.formats.images import ListedImage, WholeFile
from urae.data.formats.tar import list_members, passed_over_in_shard
from urae.data.manifest import MANIFEST, check_name, is_hidden, read_manifest
from urae.data.sidecar import SIDECAR_SUFFIXES, Sidecar, read_sidecar
from urae.errors import BadFile
from urae.io import FOREIGN_SUFFIXES, PICTURE_SUFFIXES, plain

__all__ = ["list_images", "passed_over"]

FACTS = ("source", "licence", "teacher", "time")


def list_images(source: str | Path) -> Iterator[ListedImage]:
    """The images of a folder, manifest, shard, folder of shards, or `datasets` folder, always in the same order.

    Images without captions are listed as well. What cannot be used is listed with its problem.
    """
    path = Path(source)
    if path.is_dir():
        return _distinct(_folder(path))
    if path.suffix == ".tar" and path.is_file():
        return _distinct(_shard(path, name=""))
    if path.suffix == ".jsonl" and path.is_file():
        return _manifest(path)
    raise ValueError(
        f"no data set at {source}: expected a folder of images or shards, a shard (.tar), a manifest (.jsonl) or a "
        "folder that `datasets` saved"
    )


def passed_over(source: str | Path) -> Counter[str]:
    """How many files of a folder or shard are not listed, by what they are, such as "hidden files" or ".csv files,
    which are neither images nor captions". A data set with a list of its own has none."""
    path = Path(source)
    if path.suffix == ".tar" and path.is_file():
        return passed_over_in_shard(path)
    if not path.is_dir() or is_arrow(path) or (path / MANIFEST).is_file():
        return Counter()
    found: Counter[str] = Counter()
    files = [file for file in path.rglob("*") if file.is_file()]
    pictures = {file.with_suffix("") for file in files if _is_picture(file)}
    for file in files:
        if file.suffix == ".tar" and not is_hidden(file, path):
            found.update(passed_over_in_shard(file))
        elif reason := _reason(file, path, pictures):
            found[reason] += 1
    return found


def _reason(file: Path, folder: Path, pictures: set[Path]) -> str:
    """Why a file is passed over; "" where it is not."""
    if is_hidden(file, folder):
        return "hidden files"
    if file.suffix in SIDECAR_SUFFIXES:
        return "" if file.with_suffix("") in pictures else f"{file.suffix} files, which belong to no image"
    if _is_picture(file):
        return ""
    return f"{file.suffix.lower() or '(none)'} files, which are neither images nor captions"


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in PICTURE_SUFFIXES + FOREIGN_SUFFIXES


def _distinct(images: Iterator[ListedImage]) -> Iterator[ListedImage]:
    """What is measured is kept by name, and names are shown without their control characters."""
    names = Counter[str]()
    for image in images:
        names[image.name] += 1
        if names[image.name] > 1:
            problem = f"{image.name} is the name of another image too, control characters aside: rename one"
            image = replace(image, problem=image.problem or problem)
        yield image


def _folder(folder: Path) -> Iterator[ListedImage]:
    if is_arrow(folder):
        return list_rows(folder)
    if (folder / MANIFEST).is_file():
        return _manifest(folder / MANIFEST)
    return _files(folder)


def _files(folder: Path) -> Iterator[ListedImage]:
    for path in sorted(folder.rglob("*")):
        if is_hidden(path, folder):
            continue
        name = plain(path.relative_to(folder).as_posix())
        if path.suffix == ".tar":
            yield from _shard(path, name=f"{name}/")
        elif _is_picture(path) and not path.is_dir():
            yield _file(path, name)


def _file(path: Path, name: str) -> ListedImage:
    place = WholeFile(path)
    try:
        check_name(path)
        return ListedImage(name=name, place=place, stamp=_stamp(path), sidecar=read_sidecar(path))
    except BadFile as error:
        return ListedImage(name=name, place=place, stamp="", problem=str(error))


def _stamp(path: Path) -> str:
    try:
        status = os.stat(path)
    except OSError as error:
        raise BadFile(f"{path} cannot be opened ({error.strerror})") from error
    if not stat.S_ISREG(status.st_mode):
        raise BadFile(f"{path} is not a regular file")
    return f"{status.st_size}-{status.st_mtime_ns}"


def _manifest(path: Path) -> Iterator[ListedImage]:
    for record in read_manifest(path):
        facts = {name: getattr(record, name) for name in FACTS if getattr(record, name)}
        file = path.parent / record.file
        sidecar = Sidecar(captions=record.captions, facts=facts)
        yield ListedImage(name=record.file, place=WholeFile(file), stamp=record.id, sidecar=sidecar)


def _shard(path: Path, *, name: str) -> Iterator[ListedImage]:
    try:
        check_name(path)
        stamp = _stamp(path)
    except BadFile as error:
        yield ListedImage(name=f"{name}(all)", place=WholeFile(path), stamp="", problem=str(error))
        return
    yield from list_members(path, name=name, stamp=stamp)

"""WebDataset shards: plain tar files in which an image and its captions have one name, with endings of their own.

The standard library's `tarfile` reads and writes them; of the `webdataset` package only its streaming loader
would be left, and images here are read by their offset instead, by any process in any order.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from urae.data.formats.images import FileSpan, ListedImage
from urae.data.record import Record
from urae.data.sidecar import LONGEST, SIDECAR_SUFFIXES, Sidecar, parse_sidecar, sidecar_of
from urae.errors import BadFile
from urae.io import FOREIGN_SUFFIXES, PICTURE_SUFFIXES, plain

__all__ = ["list_members", "passed_over_in_shard", "write_tars"]

DAMAGED = (tarfile.TarError, OSError, EOFError, ValueError)


@dataclass
class _ShardContents:
    """What a shard holds, as far as it can be read."""

    path: Path
    images: list[tarfile.TarInfo] = field(default_factory=list)
    texts: dict[str, dict[str, bytes | str]] = field(default_factory=dict)
    """By name less its ending, and ending: contents, or what is wrong with them."""
    passed_over: Counter[str] = field(default_factory=Counter)
    problem: str = ""

    def belonging(self, image: str) -> dict[str, str]:
        """The texts of an image, as name by ending. Those that have its name to the last dot are its own; else, by
        WebDataset's rule, those that have it to the first."""
        return {suffix: key for key in _keys(image)[::-1] for suffix in self.texts.get(key, ())}


def list_members(shard: Path, *, name: str, stamp: str) -> Iterator[ListedImage]:
    """The images of a shard with their sidecars, their names beginning with `name`. A shard that is damaged ends with
    one that says so."""
    read = _read(shard)
    for info in read.images:
        place = FileSpan(shard, info.offset_data, info.size)
        sidecar, problem = _sidecar(read, info.name)
        yield ListedImage(
            name=name + plain(info.name), place=place, stamp=stamp, sidecar=sidecar, problem=problem
        )
    if read.problem:
        place = FileSpan(shard, 0, 0)
        yield ListedImage(name=f"{name}(the rest)", place=place, stamp=stamp, problem=read.problem)


def passed_over_in_shard(shard: Path) -> Counter[str]:
    """How many files of a shard are neither images nor captions of one, by what they are."""
    read = _read(shard)
    used = {(key, suffix) for info in read.images for suffix, key in read.belonging(info.name).items()}
    found = Counter(read.passed_over)
    for key, texts in read.texts.items():
        found.update(
            f"{suffix} files, which belong to no image" for suffix in texts if (key, suffix) not in used
        )
    return found


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


def _read(path: Path) -> _ShardContents:
    shard = _ShardContents(path)
    try:
        with path.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for info in tar:
                if info.isfile():
                    _sort(info, tar, shard)
                elif not info.isdir():
                    shard.passed_over["links and devices"] += 1
            _check_end(file, tar.offset)
    except DAMAGED as error:
        shard.problem = f"{path} is damaged as a tar file ({error})"
    return shard


def _check_end(file: BinaryIO, end: int) -> None:
    """Readers stop at the end of the first of two archives in one file, as `cat` makes of them."""
    file.seek(end)
    if any(map(any, iter(partial(file.read, tarfile.RECORDSIZE), b""))):
        raise tarfile.ReadError("another archive begins behind its end")


def _sort(info: tarfile.TarInfo, tar: tarfile.TarFile, shard: _ShardContents) -> None:
    suffix = PurePosixPath(info.name).suffix.lower()
    if any(part.startswith(".") and part not in (".", "..") for part in info.name.split("/")):
        shard.passed_over["hidden files"] += 1  # which WebDataset passes over too
    elif suffix in PICTURE_SUFFIXES + FOREIGN_SUFFIXES:
        shard.images.append(info)
    elif suffix in SIDECAR_SUFFIXES:
        texts = shard.texts.setdefault(_keys(info.name)[0], {})
        texts[suffix] = f"{plain(info.name)} is there twice" if suffix in texts else _text(info, tar)
    else:
        shard.passed_over[f"{suffix or '(none)'} files, which are neither images nor captions"] += 1


def _keys(name: str) -> tuple[str, str]:
    """A member's name to the last and to the first dot of its last part."""
    path = PurePosixPath(name)
    return path.with_suffix("").as_posix(), path.with_name(path.name.partition(".")[0]).as_posix()


def _text(info: tarfile.TarInfo, tar: tarfile.TarFile) -> bytes | str:
    if info.size > LONGEST:
        return f"{info.name} has {info.size} bytes: expected a caption"
    opened = tar.extractfile(info)
    assert opened is not None
    return opened.read()


def _sidecar(shard: _ShardContents, image: str) -> tuple[Sidecar, str]:
    """The sidecar of an image, or what is wrong with it."""
    found = {suffix: shard.texts[key][suffix] for suffix, key in shard.belonging(image).items()}
    problem = next((text for text in found.values() if isinstance(text, str)), "")
    texts = {suffix: text for suffix, text in found.items() if isinstance(text, bytes)}
    try:
        image.encode()
        return parse_sidecar(texts, name=f"{shard.path}/{_keys(image)[0]}"), problem
    except UnicodeEncodeError:
        return Sidecar(), f"the name of {plain(image)} in {shard.path} is not UTF-8 text: rename it"
    except BadFile as error:
        return Sidecar(), str(error)


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))

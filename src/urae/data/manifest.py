"""Lists of records: a JSON-lines manifest, or a folder of images with captions beside them.

A folder holds images, at any depth, each with a sidecar (see `urae.data.sidecar`), or a manifest of its own named
`manifest.jsonl`. A manifest holds one record a line; its files are relative to the folder it lies in. Nothing is
left out silently: an image without a caption, an unreadable one and two with the same bytes are errors that list
the files.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

from urae.data.record import Record
from urae.data.sidecar import read_sidecar
from urae.errors import BadFile

__all__ = ["listed", "read_manifest", "read_records", "scan_folder", "write_manifest"]

MANIFEST = "manifest.jsonl"
"""Of a folder that has one."""

IMAGE_SUFFIXES = (".avif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
FOREIGN_SUFFIXES = (".bmp", ".gif", ".heic", ".heif", ".jp2", ".jxl", ".psd", ".svg")
"""Of images that are not read."""


def read_records(source: str | Path, *, captioned: bool = True) -> tuple[list[Record], Path]:
    """The records of a folder or a manifest, and the folder that their files are relative to. Images without
    a caption are a `ValueError` unless `captioned` is False."""
    source = Path(source)
    if source.is_dir() and not (source / MANIFEST).is_file():
        return scan_folder(source, captioned=captioned), source
    path = source / MANIFEST if source.is_dir() else source
    if not path.is_file():
        raise ValueError(f"no data at {source}: expected a folder of captioned images or a manifest (.jsonl)")
    if path.suffix == ".tar":
        raise ValueError(
            f"{path} is a shard: take its images out by `urae data import` or `urae data convert`"
        )
    records = read_manifest(path)
    if captioned:
        _require_captions([record.file for record in records if not record.captions], path)
    return records, path.parent


def read_manifest(path: Path) -> list[Record]:
    """The records of a JSON-lines file. A line that is no record is a `BadFile` with its number."""
    records = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            records.append(Record.from_dict(json.loads(line)))
        except (ValueError, TypeError, KeyError) as error:
            raise BadFile(f"{path}, line {number} is not a record: {error}") from error
    return _checked(records, path)


def write_manifest(records: Iterable[Record], path: Path) -> None:
    """Write one record a line, complete or not at all."""
    lines = (json.dumps(asdict(record), ensure_ascii=False) for record in records)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    os.replace(temporary, path)


def scan_folder(folder: Path, *, captioned: bool = True) -> list[Record]:
    """The records of a folder of images with sidecars, in order of their paths. Images without a caption are a
    `ValueError` unless `captioned` is False."""
    files = sorted(folder.rglob("*"))
    foreign = [path for path in files if path.suffix.lower() in FOREIGN_SUFFIXES and path.is_file()]
    if foreign:
        raise ValueError(
            f"{len(foreign)} images in {folder} are none of {', '.join(IMAGE_SUFFIXES)}: convert or remove "
            f"{listed(foreign, folder)}"
        )
    images = [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES]
    sidecars = {path: read_sidecar(path) for path in images}
    if captioned:
        bare = [path for path in images if not sidecars[path].captions]
        _require_captions([path.relative_to(folder).as_posix() for path in bare], folder)
    records = [
        Record.of(path, root=folder, captions=sidecar.captions, **{"source": "folder", **sidecar.facts})
        for path, sidecar in sidecars.items()
    ]
    return _checked(records, folder)


def listed(files: Sequence[Path | str], root: Path | None = None) -> str:
    """Up to eight files, named relative to `root`, and how many more there are."""
    names = [str(Path(file).relative_to(root)) if root else str(file) for file in files]
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def _require_captions(bare: Sequence[str], source: Path) -> None:
    if bare:
        raise ValueError(
            f"{len(bare)} images in {source} have no caption: run `urae data caption`, or put a .json with "
            f'"prompt" or "generated_prompt", or a .txt, beside each of {listed(bare)}'
        )


def _checked(records: list[Record], source: Path) -> list[Record]:
    if not records:
        raise ValueError(f"{source} holds no images: expected {', '.join(IMAGE_SUFFIXES)} files")
    files = defaultdict(list)
    for record in records:
        files[record.id].append(record.file)
    twice = [" = ".join(names) for names in files.values() if len(names) > 1]
    if twice:
        raise ValueError(f"{source} holds the same image more than once, keep one each of: {listed(twice)}")
    return records

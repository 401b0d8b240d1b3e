"""Lists of records: a JSON-lines manifest, or a folder of images with captions beside them.

A folder holds images, at any depth, each with a sidecar (see `urae.data.sidecar`), or a manifest of its own named
`manifest.jsonl`. A manifest holds one record a line; its files are relative to the folder it lies in. Nothing is
left out silently: an image without a caption, an unreadable one and two with the same bytes are errors that list
the files. Only what is hidden, whose name begins with a dot, is no data: the system's, and other tools', own notes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

from urae.data.record import Record
from urae.data.sidecar import read_sidecar
from urae.errors import BadFile
from urae.io import (
    FOREIGN_SUFFIXES,
    PICTURE_SUFFIXES,
    is_picture_name,
    json_line,
    plain,
    read_lines,
    write_text,
)

__all__ = [
    "MANIFEST",
    "check_name",
    "is_hidden",
    "listed",
    "read_manifest",
    "read_records",
    "scan_folder",
    "write_manifest",
]

MANIFEST = "manifest.jsonl"
"""Of a folder that has one."""


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
    records = [Record.parse(line, name=place) for place, line in read_lines(path) if line.strip()]
    return _checked(records, path)


def write_manifest(records: Iterable[Record], path: Path) -> None:
    """Write one record a line, complete or not at all."""
    write_text(path, "".join(json_line(asdict(record)) for record in records))


def scan_folder(folder: Path, *, captioned: bool = True) -> list[Record]:
    """The records of a folder of images with sidecars, in order of their paths. Images without a caption are a
    `ValueError` unless `captioned` is False."""
    files = [path for path in sorted(folder.rglob("*")) if not is_hidden(path, folder)]
    foreign = [path for path in files if path.suffix.lower() in FOREIGN_SUFFIXES and path.is_file()]
    if foreign:
        raise ValueError(
            f"{len(foreign)} images in {folder} are not {', '.join(PICTURE_SUFFIXES)} files: convert or remove "
            f"{listed(foreign, folder)}"
        )
    images = [path for path in files if is_picture_name(path)]
    for path in images:
        check_name(path)
    sidecars = {path: read_sidecar(path) for path in images}
    if captioned:
        bare = [path for path in images if not sidecars[path].captions]
        _require_captions([path.relative_to(folder).as_posix() for path in bare], folder)
    records = [
        Record.of(path, root=folder, captions=sidecar.captions, **{"source": "folder", **sidecar.facts})
        for path, sidecar in sidecars.items()
    ]
    return _checked(records, folder)


def is_hidden(path: Path, folder: Path) -> bool:
    """Whether a file in a folder, or a folder that it lies in, has a name that begins with a dot."""
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def check_name(path: Path) -> None:
    """`BadFile` for a name that no manifest can hold."""
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise BadFile(f"the name of {plain(path)} is not UTF-8 text: rename it") from error


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
        raise ValueError(f"{source} holds no images: expected {', '.join(PICTURE_SUFFIXES)} files")
    files = defaultdict(list)
    for record in records:
        files[record.id].append(record.file)
    twice = [" = ".join(names) for names in files.values() if len(names) > 1]
    if twice:
        raise ValueError(f"{source} holds the same image more than once, keep one each of: {listed(twice)}")
    return records

"""Lists of records: a JSON-lines manifest, or a folder of images with captions beside them.

A folder holds images, at any depth, each with a sidecar of the same name: `.json` with "prompt" (the original
caption) and "generated_prompt" (the detailed one), or `.txt` with the original caption. A manifest holds one
record a line; its files are relative to the folder it lies in. Nothing is left out silently: an image without
a caption, an unreadable one and two with the same bytes are errors that list the files.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

from urae.data.record import Record
from urae.errors import BadFile

__all__ = ["listed", "read_manifest", "read_records", "scan_folder", "write_manifest"]

IMAGE_SUFFIXES = (".jpeg", ".jpg", ".png", ".webp")


def read_records(source: str | Path) -> tuple[list[Record], Path]:
    """The records of a folder or a manifest, and the folder that their files are relative to."""
    source = Path(source)
    if source.is_dir():
        return scan_folder(source), source
    if source.is_file():
        return read_manifest(source), source.parent
    raise ValueError(f"no data at {source}: expected a folder of captioned images or a manifest (.jsonl)")


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


def scan_folder(folder: Path) -> list[Record]:
    """The records of a folder of images with sidecars, in order of their paths."""
    images = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    bare = [path for path in images if _sidecar(path) is None]
    if bare:
        raise ValueError(
            f"{len(bare)} images in {folder} have no caption: put a .json or .txt beside each of "
            f"{listed(bare, folder)}"
        )
    records = [Record.of(path, root=folder, captions=_captions(path), source="folder") for path in images]
    return _checked(records, folder)


def listed(files: Sequence[Path | str], root: Path | None = None) -> str:
    """Up to eight files, named relative to `root`, and how many more there are."""
    names = [str(Path(file).relative_to(root)) if root else str(file) for file in files]
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def _sidecar(image: Path) -> Path | None:
    candidates = (image.with_suffix(suffix) for suffix in (".json", ".txt"))
    return next((path for path in candidates if path.is_file()), None)


def _captions(image: Path) -> dict[str, str]:
    sidecar = _sidecar(image)
    assert sidecar is not None
    text = sidecar.read_text(encoding="utf-8")
    if sidecar.suffix == ".txt":
        return {"original": text.strip()}
    try:
        values = json.loads(text)
    except ValueError as error:
        raise BadFile(f"{sidecar} is not JSON ({error})") from error
    kinds = {"prompt": "original", "generated_prompt": "detailed"}
    captions = {kind: values[key].strip() for key, kind in kinds.items() if key in values}
    if not captions:
        raise ValueError(f'{sidecar} names neither "prompt" nor "generated_prompt": expected one or both')
    return captions


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

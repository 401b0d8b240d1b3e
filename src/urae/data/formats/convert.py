"""Any format into any other: the same images, byte for byte, with all that is known of each."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from PIL import Image

from urae.data.formats.arrow import write_arrow
from urae.data.formats.items import Item, list_items
from urae.data.formats.tar import write_tars
from urae.data.manifest import MANIFEST, listed, write_manifest
from urae.data.record import UNREADABLE, Record
from urae.data.sidecar import sidecar_of
from urae.errors import BadFile
from urae.io import tracked

__all__ = ["FORMS", "SUFFIXES", "convert"]

SUFFIXES = {"JPEG": ".jpg", "MPO": ".jpg", "PNG": ".png", "WEBP": ".webp", "TIFF": ".tif", "AVIF": ".avif"}
"""By Pillow's name of the format."""

Samples = Iterable[tuple[Record, bytes]]


def convert(source: str | Path, out: str | Path, *, form: str, shard_bytes: int = 10**9) -> Path:
    """Write a data set into the new folder `out`, in one of `FORMS`, and return that folder.

    source: whatever `list_items` reads. shard_bytes: of images in a shard. The folder is complete or absent.
    Raises `BadFile` if any image or sidecar cannot be read, `ValueError` where the form cannot hold a record.
    """
    out = Path(out)
    if form not in FORMS:
        raise ValueError(f"there is no form {form!r}: expected one of {', '.join(FORMS)}")
    if out.exists():
        raise ValueError(f"{out} exists: name a folder that does not, or delete it")
    items = _usable(list(list_items(source)), source)
    unfinished = out.with_name(f".unfinished-{out.name}")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    write = partial(write_tars, shard_bytes=shard_bytes) if form == "shards" else FORMS[form]
    write(_samples(items), unfinished)
    os.replace(unfinished, out)
    return out


def _usable(items: list[Item], source: str | Path) -> list[Item]:
    problems = [item.problem for item in items if item.problem]
    if problems:
        raise BadFile(
            f"{len(problems)} of {len(items)} images in {source} cannot be used: {listed(problems)}"
        )
    if not items:
        raise ValueError(f"{source} holds no images")
    return items


def _samples(items: list[Item]) -> Iterator[tuple[Record, bytes]]:
    for index, item in enumerate(tracked(items, f"writing {len(items)} images")):
        content = item.place.read()
        file = f"{index:08d}{_suffix(content, item.name)}"
        captions, facts = item.sidecar.captions, {"source": item.name} | item.sidecar.facts
        yield Record.of_bytes(content, file=file, name=item.name, captions=captions, **facts), content


def _suffix(content: bytes, name: str) -> str:
    try:
        with Image.open(io.BytesIO(content)) as image:
            return SUFFIXES[image.format or ""]
    except (*UNREADABLE, KeyError) as error:
        raise BadFile(f"{name} is none of {', '.join(SUFFIXES)} ({error}): replace or remove it") from error


# --- writers -----------------------------------------------------------------------------------------------


def _write_manifest(samples: Samples, out: Path) -> None:
    (out / "images").mkdir()
    records = []
    for record, content in samples:
        (out / "images" / record.file).write_bytes(content)
        records.append(replace(record, file=f"images/{record.file}"))
    write_manifest(records, out / MANIFEST)


def _write_sidecars(samples: Samples, out: Path) -> None:
    for record, content in samples:
        (out / record.file).write_bytes(content)
        text = json.dumps(sidecar_of(record), ensure_ascii=False, indent=2)
        (out / record.file).with_suffix(".json").write_text(text, encoding="utf-8")


def _write_captions(samples: Samples, out: Path) -> None:
    for record, content in samples:
        if "original" not in record.captions:
            raise ValueError(
                f"{record.source} has no original caption, which is all that a .txt holds: use the form sidecars"
            )
        (out / record.file).write_bytes(content)
        (out / record.file).with_suffix(".txt").write_text(record.captions["original"], encoding="utf-8")


FORMS: dict[str, Callable[[Samples, Path], None]] = {
    "manifest": _write_manifest,
    "sidecars": _write_sidecars,
    "captions": _write_captions,
    "shards": partial(write_tars, shard_bytes=10**9),
    "datasets": write_arrow,
}
"""Of a data set on disk: name -> writer. "captions" (`.txt`) keeps the original caption and nothing else; the others
keep all that a record knows."""

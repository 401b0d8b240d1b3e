"""Any format into any other: the same images, byte for byte, with all that is known of each."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from urae.data.formats.arrow import write_arrow
from urae.data.formats.images import ListedImage
from urae.data.formats.listing import list_images, passed_over
from urae.data.formats.tar import write_tars
from urae.data.manifest import MANIFEST, listed, write_manifest
from urae.data.record import Record, suffix_of
from urae.data.sidecar import sidecar_of
from urae.errors import BadFile
from urae.io import Progress, tracked, writing_folder

__all__ = ["FORMS", "convert"]

Samples = Iterable[tuple[Record, bytes]]


def convert(source: str | Path, out: str | Path, *, form: str, shard_bytes: int = 10**9) -> Path:
    """Write a data set into the new folder `out`, in one of `FORMS`, and return that folder.

    source: whatever `list_images` reads. shard_bytes: of images in a shard. The folder is complete or absent. What is
    left out, files that belong to no image or captions that the form cannot hold, is said on standard error.
    Raises `BadFile` if any image or sidecar cannot be read, `ValueError` where the form cannot hold a record.
    """
    out = Path(out)
    if form not in FORMS:
        raise ValueError(f"there is no form {form!r}: expected one of {', '.join(FORMS)}")
    write = partial(write_tars, shard_bytes=shard_bytes) if form == "shards" else FORMS[form]
    with writing_folder(out) as unfinished:
        images = _usable(list(list_images(source)), source)
        write(_samples(images), unfinished)
    for what, count in sorted(passed_over(source).items()):
        _say(f"passed over: {count} {what}")
    return out


def _usable(images: list[ListedImage], source: str | Path) -> list[ListedImage]:
    problems = [image.problem for image in images if image.problem]
    if problems:
        raise BadFile(
            f"{len(problems)} of {len(images)} images in {source} cannot be used: {listed(problems)}"
        )
    if not images:
        raise ValueError(f"{source} holds no images")
    return images


def _samples(images: list[ListedImage]) -> Iterator[tuple[Record, bytes]]:
    for index, image in enumerate(tracked(images, f"writing {len(images)} images")):
        content = image.place.read()
        file = f"{index:08d}{suffix_of(content)}"
        captions, facts = image.sidecar.captions, {"source": image.name} | image.sidecar.facts
        yield Record.of_bytes(content, file=file, name=image.name, captions=captions, **facts), content


def _say(text: str) -> None:
    Progress("", total=0).say(text)


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
    num_lost = 0
    for record, content in samples:
        if "original" not in record.captions:
            raise ValueError(
                f"{record.source} has no original caption, which is all that a .txt holds: use the form sidecars"
            )
        num_lost += "detailed" in record.captions
        (out / record.file).write_bytes(content)
        (out / record.file).with_suffix(".txt").write_text(record.captions["original"], encoding="utf-8")
    if num_lost:
        _say(f"left out: {num_lost} detailed captions, which a .txt does not hold beside the original")


FORMS: dict[str, Callable[[Samples, Path], None]] = {
    "manifest": _write_manifest,
    "sidecars": _write_sidecars,
    "captions": _write_captions,
    "shards": partial(write_tars, shard_bytes=10**9),
    "datasets": write_arrow,
}
"""Of a data set on disk: name -> writer. "captions" (`.txt`) keeps the original caption and nothing else; the others
keep all that a record knows."""

"""Folders that the `datasets` package saved (`save_to_disk`): a column of images, columns of captions and facts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from urae.data.formats.images import ListedImage
from urae.data.record import Record
from urae.data.sidecar import Sidecar, parse_values, sidecar_of
from urae.errors import BadFile, MissingExtra
from urae.io import read_bytes

__all__ = ["is_arrow", "list_rows", "write_arrow"]

COLUMNS = ("prompt", "generated_prompt", "source", "licence", "teacher", "time")


@dataclass(frozen=True)
class ArrowCell:
    """An image in a row."""

    folder: Path
    column: str
    index: int

    def read(self) -> bytes:
        value = _images(self.folder, self.column)[self.index][self.column] or {}
        if value.get("bytes") is not None:
            return value["bytes"]
        return read_bytes(value.get("path") or "")


def is_arrow(folder: Path) -> bool:
    """Whether `datasets` saved this folder. One with several splits is a `ValueError` that names them."""
    if (folder / "dataset_dict.json").is_file():
        splits = sorted(path.name for path in folder.iterdir() if (path / "state.json").is_file())
        raise ValueError(
            f"{folder} has several splits: name one of {', '.join(str(folder / s) for s in splits)}"
        )
    return (folder / "state.json").is_file() and (folder / "dataset_info.json").is_file()


def list_rows(folder: Path) -> Iterator[ListedImage]:
    """The rows of a saved data set. Its one column of images may have any name; captions and facts are in columns
    with the names that a JSON sidecar has."""
    package = _package()
    data = package.load_from_disk(str(folder))
    columns = [name for name, feature in data.features.items() if isinstance(feature, package.Image)]
    if len(columns) != 1:
        raise ValueError(
            f"{folder} has {len(columns)} columns of images ({', '.join(columns) or 'none'}): expected one"
        )
    stamp = data._fingerprint
    for index, values in enumerate(data.remove_columns(columns)):
        name, sidecar, problem = f"row {index}", Sidecar(), ""
        try:
            sidecar = parse_values(values, name=f"{folder}, {name}")
        except BadFile as error:
            problem = str(error)
        place = ArrowCell(folder, columns[0], index)
        yield ListedImage(name=name, place=place, stamp=stamp, sidecar=sidecar, problem=problem)


def write_arrow(samples: Iterable[tuple[Record, bytes]], out: Path) -> None:
    """A data set with the columns "image" and those of a sidecar; "teacher" is JSON text."""
    package = _package()
    features = package.Features(
        {"image": package.Image(decode=False)} | {name: package.Value("string") for name in COLUMNS}
    )
    from datasets.arrow_writer import ArrowWriter

    rows = out / "rows"  # `datasets` does not save a data set into the folder that it lies in
    rows.mkdir()
    with ArrowWriter(path=str(rows / "rows.arrow"), features=features) as writer:
        for record, content in samples:
            writer.write(_row(record, content))
        writer.finalize()
    made = package.Dataset.from_file(str(rows / "rows.arrow")).cast_column("image", package.Image())
    made.save_to_disk(str(out))
    shutil.rmtree(rows)


def _row(record: Record, content: bytes) -> dict[str, Any]:
    sidecar = sidecar_of(record)
    values = {name: sidecar.get(name) for name in COLUMNS}
    if record.teacher:
        values["teacher"] = json.dumps(record.teacher, ensure_ascii=False)
    return {"image": {"bytes": content, "path": Path(record.file).name}, **values}


@lru_cache(maxsize=8)
def _images(folder: Path, column: str) -> Any:
    package = _package()
    data = package.load_from_disk(str(folder)).select_columns([column])
    return data.cast_column(column, package.Image(decode=False))


def _package() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise MissingExtra(
            "data sets that `datasets` saved need that package: pip install 'urae[datasets]'"
        ) from error
    datasets.disable_progress_bars()
    return datasets

"""Rows of a table of URLs that are worth a download, chosen by what the table says: size, similarity, licence.

A table such as LAION's has columns in any case (URL, TEXT, WIDTH, HEIGHT, similarity, LICENSE) and hundreds of millions
of rows. It is read in batches, and what passes goes into a table of its own with the names that are usual here. What
the table does not say is not asked: the images themselves are judged after the download.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from urae.data.pixels import trains_at
from urae.errors import BadFile, MissingExtra
from urae.io import writing

__all__ = ["Rows", "choose_rows", "columns_of", "known_columns", "parquet_of"]

BATCH = 65536
NAMES: Mapping[str, tuple[str, ...]] = {
    "url": ("url", "image_url"),
    "caption": ("prompt", "caption", "text"),
    "generated_prompt": ("generated_prompt",),
    "licence": ("licence", "license"),
    "width": ("width", "original_width"),
    "height": ("height", "original_height"),
    "similarity": ("similarity", "clip_similarity_vitb32"),
}
"""What a column is called here, and elsewhere, in any case."""
Batch = dict[str, list[Any]]
"""Values by column, as many in each."""


@dataclass(frozen=True, kw_only=True)
class Rows:
    """What a row must promise."""

    size: int
    """Px of the training: its image covers a bucket without being enlarged, by the table's width and height."""
    max_ratio: float
    """Most of the long side over the short one."""
    similarity: float = 0.0
    """Least of the picture and its caption, by the table; 0 asks for none."""
    licences: tuple[str, ...] = ()
    """Allowed ones, any case; none for all."""


def choose_rows(table: Path, out: Path, rows: Rows) -> Counter[str]:
    """Write the rows of `table` that promise enough to `out`, of the same format, and count the others by reason.

    `ValueError` for a table without addresses, or without the similarity that is asked for.
    """
    columns = known_columns(table)
    if rows.similarity and "similarity" not in columns:
        raise ValueError(
            f"similarity is {rows.similarity:g}, and {table} has the columns {', '.join(columns_of(table))}: leave it "
            "out"
        )
    left_out: Counter[str] = Counter()
    kept = [name for name in ("url", "caption", "generated_prompt", "licence") if name in columns]
    with writing(out) as path, _Writer(path, kept, table.suffix) as write:
        for batch in _batches(table, columns):
            chosen = _chosen(batch, rows, left_out)
            write({name: [batch[name][place] for place in chosen] for name in kept})
    return left_out


def known_columns(table: Path) -> dict[str, str]:
    """The table's own names of the columns that mean something here, by ours. `ValueError` where there is no URL."""
    columns = columns_of(table)
    lowered = {column.lower(): column for column in reversed(columns)}
    found = {ours: next((lowered[n] for n in names if n in lowered), "") for ours, names in NAMES.items()}
    if not found["url"]:
        raise ValueError(f"{table} has the columns {', '.join(columns)}: expected one named url")
    return {ours: theirs for ours, theirs in found.items() if theirs}


def columns_of(table: Path) -> list[str]:
    """The names of a table's columns."""
    if table.suffix == ".csv":
        with table.open(newline="", encoding="utf-8-sig") as file:
            return next(csv.reader(file), [])
    return parquet_of().read_schema(table).names


def parquet_of() -> Any:
    """pyarrow's parquet; `MissingExtra` without it."""
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise MissingExtra("parquet tables need pyarrow: pip install 'urae[data]'") from error
    return parquet


def _batches(table: Path, columns: Mapping[str, str]) -> Iterator[Batch]:
    if table.suffix == ".csv":
        with table.open(newline="", encoding="utf-8-sig", errors="replace") as file:
            reader = csv.DictReader(file)
            while lines := list(islice(reader, BATCH)):
                yield {ours: [line[theirs] for line in lines] for ours, theirs in columns.items()}
        return
    theirs = list(columns.values())
    for batch in parquet_of().ParquetFile(table).iter_batches(batch_size=BATCH, columns=theirs):
        values = batch.to_pydict()
        yield {ours: values[name] for ours, name in columns.items()}


def _chosen(batch: Batch, rows: Rows, left_out: Counter[str]) -> list[int]:
    """Places in a batch, and a count of the others by the first reason that holds."""
    places = list(range(len(batch["url"])))
    judges = {
        f"too small for {rows.size} px, too long, or of unknown size by the table": _large_enough(
            batch, rows
        ),
        f"similarity below {rows.similarity:g}": _similar(batch, rows),
        "not under an allowed licence by the table": _licensed(batch, rows),
    }
    for reason, passes in judges.items():
        before = len(places)
        places = [place for place in places if passes is None or passes[place]]
        left_out.update({reason: before - len(places)} if before > len(places) else {})
    return places


def _large_enough(batch: Batch, rows: Rows) -> Any:
    if not {"width", "height"} <= batch.keys():
        return None
    width, height = _numbers(batch["width"]), _numbers(batch["height"])
    # Few of a web's pictures are near: the exact rule is asked of those alone.
    near = np.maximum(width, height) >= rows.size
    fits = np.zeros(len(width), dtype=bool)
    for place in np.flatnonzero(near & (np.minimum(width, height) >= 1)):
        size = (int(width[place]), int(height[place]))
        fits[place] = max(size) <= rows.max_ratio * min(size) and trains_at(size, rows.size)
    return fits


def _similar(batch: Batch, rows: Rows) -> Any:
    return _numbers(batch["similarity"]) >= rows.similarity if rows.similarity else None


def _licensed(batch: Batch, rows: Rows) -> Any:
    if not rows.licences or "licence" not in batch:
        return None
    allowed = {name.lower() for name in rows.licences}
    return [str(value or "").strip().lower() in allowed for value in batch["licence"]]


def _numbers(values: list[Any]) -> np.ndarray:
    """NaN, which is never enough, for what is missing; `BadFile` for what is no number."""
    try:
        return np.array([float(value) if value not in (None, "") else np.nan for value in values])
    except (TypeError, ValueError) as error:
        raise BadFile(f"a width, height or similarity of the table is not a number ({error})") from error


class _Writer:
    """A table that is written batch by batch."""

    def __init__(self, path: Path, columns: Sequence[str], suffix: str) -> None:
        self.path, self.columns, self.suffix = path, columns, suffix

    def __enter__(self) -> Any:
        if self.suffix == ".csv":
            self.file: Any = self.path.open("w", newline="", encoding="utf-8")
            lines = csv.writer(self.file)
            lines.writerow(self.columns)
            return lambda batch: lines.writerows(zip(*batch.values(), strict=True))
        import pyarrow

        schema = pyarrow.schema([(name, pyarrow.string()) for name in self.columns])
        self.file = parquet_of().ParquetWriter(self.path, schema)
        return lambda batch: self.file.write_table(pyarrow.table(batch, schema=schema))

    def __exit__(self, *_: object) -> None:
        self.file.close()

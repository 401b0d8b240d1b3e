"""Prompts to collect images of: from a text file, JSON lines or a parquet table, and some hundred of our own.

The shipped ones (`prompts/*.txt`, one prompt a line) were written for this package, varied in subject and style, and
may be used like its code.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from urae.errors import BadFile, MissingExtra
from urae.io import read_json_lines, read_lines

__all__ = ["SHIPPED", "read_prompts", "shipped_prompts"]

SHIPPED = "shipped"
"""Names our own prompts in place of a file."""


def read_prompts(source: str | Path, *, column: str = "prompt") -> list[str]:
    """The prompts of a .txt file (one a line), a .jsonl file (the key `column` of each line), a .parquet table (its
    `column`), or our own under the name "shipped". Empty lines of text are passed over; an entry that is no text is
    a `BadFile` with its place."""
    if source == SHIPPED:
        return shipped_prompts()
    path = Path(source)
    if path.suffix not in READERS:
        raise ValueError(f"prompts are {source}: expected a {', '.join(READERS)} file, or {SHIPPED}")
    prompts = [_checked(value, place) for place, value in READERS[path.suffix](path, column)]
    if not prompts:
        raise BadFile(f"{path} holds no prompts")
    return prompts


def shipped_prompts() -> list[str]:
    """Our own prompts, one subject after the other."""
    files = sorted((Path(__file__).parent / "prompts").glob("*.txt"))
    return [prompt for file in files for _, prompt in _lines(file, "")]


def _lines(path: Path, column: str) -> Iterable[tuple[str, Any]]:
    return ((place, line) for place, line in read_lines(path) if line.strip())


def _json_lines(path: Path, column: str) -> Iterable[tuple[str, Any]]:
    for place, values in read_json_lines(path):
        if column not in values:
            raise BadFile(f"{place} holds no prompt: expected a JSON object with the key {column!r}")
        yield place, values[column]


def _table(path: Path, column: str) -> Iterable[tuple[str, Any]]:
    try:
        from pyarrow import ArrowInvalid, parquet
    except ImportError as error:
        raise MissingExtra("parquet tables need pyarrow: pip install 'urae[data]'") from error
    try:
        names = parquet.read_schema(path).names
        if column not in names:
            raise ValueError(f"{path} has no column {column!r}: it has {', '.join(names)}")
        values = parquet.read_table(path, columns=[column]).column(column).to_pylist()
    except ArrowInvalid as error:
        raise BadFile(f"{path} cannot be read as a parquet table ({error})") from error
    return [(f"{path}, row {number}", value) for number, value in enumerate(values, start=1)]


READERS = {".txt": _lines, ".jsonl": _json_lines, ".parquet": _table}


def _checked(value: Any, place: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise BadFile(f"{place} holds no prompt: expected a text, got {value!r}")
    return value.strip()

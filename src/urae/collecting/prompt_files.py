"""Prompts of which images are drawn or collected: a text file, JSON lines, a parquet table, and some hundred of ours.

Where a file has ids, the pictures are called by them, so that whoever looks at them later finds each by its prompt.

The shipped ones (`prompts/*.txt`, one prompt a line) were written for this package, varied in subject and style, and
may be used like its code.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from urae.errors import BadFile, MissingExtra
from urae.io import check_file_name, read_json_lines, read_lines

__all__ = ["SHIPPED", "read_prompts", "shipped_prompts"]

SHIPPED = "shipped"
"""Names our own prompts in place of a file."""
ID = "id"
Entry = tuple[str, dict[str, Any]]
"""The place of a prompt, and what stands there."""


def read_prompts(source: str | Path, *, column: str = "prompt") -> list[str] | dict[str, str]:
    """The prompts of a .txt file (one a line), a .jsonl file (the key `column` of each line), a .parquet table (its
    `column`), or our own under the name "shipped"; by id where the lines or rows have an "id". Empty lines of text are
    passed over; an entry that is no text, an id that stands twice, and one that is missing are a `BadFile` with its
    place."""
    if source == SHIPPED:
        return shipped_prompts()
    path = Path(source)
    if path.suffix not in READERS:
        raise ValueError(f"prompts are {source}: expected a {', '.join(READERS)} file, or {SHIPPED}")
    entries = list(READERS[path.suffix](path, column))
    if not entries:
        raise BadFile(f"{path} holds no prompts")
    texts = [_checked(values[column], place) for place, values in entries]
    if not any(values.get(ID) is not None for _, values in entries):
        return texts
    return dict(zip(_ids(entries), texts, strict=True))


def shipped_prompts() -> list[str]:
    """Our own prompts, one subject after the other."""
    files = sorted((Path(__file__).parent / "prompts").glob("*.txt"))
    return [entry[""] for file in files for _, entry in _lines(file, "")]


def _lines(path: Path, column: str) -> Iterable[Entry]:
    return ((place, {column: line}) for place, line in read_lines(path) if line.strip())


def _json_lines(path: Path, column: str) -> Iterable[Entry]:
    for place, values in read_json_lines(path):
        if column not in values:
            raise BadFile(f"{place} holds no prompt: expected a JSON object with the key {column!r}")
        yield place, values


def _table(path: Path, column: str) -> Iterable[Entry]:
    try:
        from pyarrow import ArrowInvalid, parquet
    except ImportError as error:
        raise MissingExtra("parquet tables need pyarrow: pip install 'urae[data]'") from error
    try:
        names = parquet.read_schema(path).names
        if column not in names:
            raise ValueError(f"{path} has no column {column!r}: it has {', '.join(names)}")
        columns = [column, *([ID] if ID in names else [])]
        rows = parquet.read_table(path, columns=columns).to_pylist()
    except ArrowInvalid as error:
        raise BadFile(f"{path} cannot be read as a parquet table ({error})") from error
    return [(f"{path}, row {number}", row) for number, row in enumerate(rows, start=1)]


READERS = {".txt": _lines, ".jsonl": _json_lines, ".parquet": _table}


def _checked(value: Any, place: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise BadFile(f"{place} holds no prompt: expected a text, got {value!r}")
    return value.strip()


def _ids(entries: Iterable[Entry]) -> Iterable[str]:
    seen: set[str] = set()
    for place, values in entries:
        # Numbers, as COCO has them.
        name = str(values[ID]) if isinstance(values.get(ID), str | int) else ""
        try:
            check_file_name(name)
        except ValueError as error:
            raise BadFile(f"{place}: {error}") from error
        if name in seen:
            raise BadFile(f"{place} has the id {name!r} again: expected each id once")
        seen.add(name)
        yield name

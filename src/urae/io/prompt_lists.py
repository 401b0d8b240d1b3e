"""Lists of prompts: text files, JSON lines, parquet tables, and those of benchmarks as they are published.

HPDv2 has a JSON list of texts for each of its four styles, and names the picture of each by its place in the list.
COCO has one file of captions, five of each image. Both give ids here, after which pictures are named.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from urae.errors import BadFile, MissingExtra
from urae.io.files import check_file_name
from urae.io.texts import field_of, read_json, read_json_lines, read_lines, typed

__all__ = ["PROMPT", "read_prompt_list"]

PROMPT, ID = "prompt", "id"
"""Keys or columns where nothing else is said."""
COMMENT = "#"
WITH_COLUMNS = (".jsonl", ".parquet")
PUBLISHED = ".json"
Entry = tuple[str, dict[str, Any]]
"""The place of a prompt, and what stands there."""


def read_prompt_list(path: Path | str, *, column: str = PROMPT) -> list[str] | dict[str, str]:
    """The prompts of a list; by id where it has ids.

    A .txt file has a prompt on each line; empty lines and comments, which begin with #, are left out. A .jsonl file has
    them under the key `column` of each line and a .parquet table in its `column`, ids under "id". HPDv2's `anime.json`,
    a list of texts, has the ids `anime-00000` and so on, by file and place; a folder of such lists is all of them, by
    name. In COCO's `captions_val2014.json`, `391895-1` is the first caption of the image 391895.

    Raises `BadFile` with its place for an entry that is not text, and for an id that occurs twice, is missing or cannot
    be a file's name; `ValueError` for another kind of file, and for a `column` of one that has none.
    """
    path = Path(path)
    is_published = path.suffix == PUBLISHED or path.is_dir()
    if not is_published and path.suffix not in READERS:
        raise ValueError(f"prompts are {path}: expected a {', '.join(READERS)} or {PUBLISHED} file")
    if column != PROMPT and path.suffix not in WITH_COLUMNS:
        raise ValueError(f"column has no effect on {path}, which has no columns: leave it out")
    if is_published:
        return _published(path)
    entries = list(READERS[path.suffix](path, column))
    if not entries:
        raise BadFile(f"{path} holds no prompts")
    texts = [_checked(values[column], place) for place, values in entries]
    if not any(values.get(ID) is not None for _, values in entries):
        return texts
    return dict(zip(_ids(entries), texts, strict=True))


def _lines(path: Path, column: str) -> Iterable[Entry]:
    for place, line in read_lines(path):
        if line.strip() and not line.lstrip().startswith(COMMENT):
            yield place, {column: line}


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
    for place, value in ((place, values.get(ID)) for place, values in entries):
        if type(value) not in (str, int):  # COCO has numbers
            raise BadFile(f"{place} has the id {value!r}: expected a text or a whole number")
        try:
            check_file_name(name := str(value))
        except ValueError as error:
            raise BadFile(f"{place}: {error}") from error
        if name in seen:
            raise BadFile(f"{place} has the id {name!r} again: expected each id once")
        seen.add(name)
        yield name


def _published(path: Path) -> dict[str, str]:
    files = sorted(path.glob(f"*{PUBLISHED}")) if path.is_dir() else [path]
    prompts = {key: text for file in files for key, text in _texts(file)}
    if not prompts:
        raise BadFile(f"{path} holds no prompts: expected .json lists of HPDv2 or captions of COCO")
    return prompts


def _texts(file: Path) -> Iterator[tuple[str, str]]:
    content = read_json(file)
    if isinstance(content, list):
        named: Iterator[tuple[str, Any]] = (
            (f"{file.stem}-{number:05d}", text) for number, text in enumerate(content)
        )
    elif isinstance(content, dict) and "annotations" in content:
        named = _captions(field_of(content, "annotations", list, name=file), file)
    else:
        raise BadFile(f"{file} holds no prompts: expected a list of texts, as HPDv2 has, or COCO's captions")
    for key, value in named:
        text = typed(value, str, name=f"prompt {key} of {file}").strip()
        if not text:
            raise BadFile(f"prompt {key} of {file} is empty")
        yield key, text


def _captions(annotations: list[Any], file: Path) -> Iterator[tuple[str, Any]]:
    seen: Counter[int] = Counter()
    for number, one in enumerate(annotations):
        name = f"annotation {number} of {file}"
        image = field_of(typed(one, dict, name=name), "image_id", int, name=name)
        seen[image] += 1
        yield f"{image}-{seen[image]}", field_of(one, "caption", str, name=name)

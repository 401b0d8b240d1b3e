r"""Texts that come from outside: JSON, lines of JSON, YAML, plain lines.

What is malformed is a `BadFile` with its place. Lines end at "\n" alone: a caption may hold U+2028, which
`str.splitlines` takes for an end. A byte order mark is passed over. JSON has no NaN, no key twice, no depth without end
and no half characters; YAML has besides no references that unfold to more than a file holds.
"""

from __future__ import annotations

import json
import math
import re
import stat
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, TypeVar

import yaml

from urae.errors import BadFile

__all__ = [
    "field_of",
    "json_line",
    "lines_of",
    "parse_json",
    "parse_json_object",
    "parse_yaml",
    "read_json",
    "read_json_lines",
    "read_json_object",
    "read_lines",
    "read_text",
    "read_toml",
    "read_yaml",
    "typed",
]

MOST_BYTES = 2**28
"""Of a text that is read whole."""
LONGEST_LINE = 2**24
MOST_YAML = 2**18
"""Characters: settings are some thousand, and the reader in Python takes seconds for a million."""
DEEPEST = 100
"""Lists and objects within each other."""
MOST_NODES = 50_000
"""Of a YAML text, its references unfolded."""

HALVES = re.compile("[\ud800-\udfff]")
"""Halves of surrogate pairs, which UTF-8 cannot hold."""
ENDS = {ord(end): f"\\u{ord(end):04x}" for end in "\x85\u2028\u2029"}
"""What `str.splitlines` takes for an end of line and JSON leaves as it is."""

Kind = TypeVar("Kind")
KINDS: dict[type, str] = {
    str: "text",
    int: "a whole number",
    float: "a finite number",
    bool: "true or false",
    list: "a list",
    dict: "an object",
}


# --- plain text ------------------------------------------------------------------------------------------------


def read_text(path: Path | str, *, limit: int = MOST_BYTES) -> str:
    """The text of a file, UTF-8 with or without a byte order mark. `BadFile` for a file that is missing, no plain file,
    longer than `limit` bytes, or in another encoding."""
    with _opened(path) as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise BadFile(f"{path} has more than {limit} bytes, more than such a file may have")
    return _decoded(content, path)


def lines_of(text: str) -> list[str]:
    r"""The lines of a text, which end at "\n" or "\r\n" alone."""
    lines = text.split("\n")
    return [line.removesuffix("\r") for line in (lines[:-1] if not lines[-1] else lines)]


def read_lines(path: Path | str) -> Iterator[tuple[str, str]]:
    """The lines of a text file with their places, such as "prompts.txt, line 3", one at a time: there may be millions.
    Raises `BadFile` as `read_text` does."""
    with _opened(path) as file:
        number = 0
        while content := file.readline(LONGEST_LINE + 1):
            number += 1
            place = f"{path}, line {number}"
            if len(content) > LONGEST_LINE:
                raise BadFile(f"{place} has more than {LONGEST_LINE} bytes: is it a text file?")
            line = _decoded(content, place, mark=number == 1)
            yield place, line.removesuffix("\n").removesuffix("\r")


# --- JSON ------------------------------------------------------------------------------------------------------


def parse_json(text: str | bytes, *, name: object, finite: bool = True) -> Any:
    """The value of a JSON text. `name` stands for it in the `BadFile` for what is malformed or no JSON by the letter:
    NaN, numbers beyond floats, a key twice, more than `DEEPEST` levels, half of a surrogate pair. Without `finite`, NaN
    and Infinity are taken as Python writes them."""
    text = _decoded(text, name) if isinstance(text, bytes) else text.removeprefix("\ufeff")
    try:
        constant = _no_number if finite else float
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=constant, parse_float=_finite)
    except RecursionError as error:
        raise BadFile(f"{name} is nested more than {DEEPEST} levels deep") from error
    except ValueError as error:
        raise BadFile(f"{name} is not JSON ({error})") from error
    if text.count("[") + text.count("{") > DEEPEST:
        _check_depth(value, name)
    if re.search(r"\\u[dD][89a-fA-F]", text) and HALVES.search(json.dumps(value, ensure_ascii=False)):
        raise BadFile(f"{name} holds half of a surrogate pair, which is not a character")
    return value


def parse_json_object(text: str | bytes, *, name: object, finite: bool = True) -> dict[str, Any]:
    """As `parse_json`, for an object."""
    return typed(parse_json(text, name=name, finite=finite), dict, name=name)


def read_json(path: Path | str) -> Any:
    """The value in a JSON file. Raises `BadFile`."""
    return parse_json(read_text(path), name=path)


def read_json_object(path: Path | str) -> dict[str, Any]:
    """The object in a JSON file. Raises `BadFile`."""
    return typed(read_json(path), dict, name=path)


def read_json_lines(path: Path | str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a file of JSON lines with their places, one at a time; empty lines are passed over. Raises
    `BadFile`."""
    for place, line in read_lines(path):
        if line.strip():
            yield place, parse_json_object(line, name=place)


def json_line(value: Any) -> str:
    r"""A value as a line of JSON, "\n" included, that every reader of lines reads, `str.splitlines` too; other
    characters beyond ASCII stay readable. `ValueError` for what JSON and UTF-8 cannot hold."""
    line = json.dumps(value, ensure_ascii=False, allow_nan=False).translate(ENDS)
    if HALVES.search(line):
        raise ValueError(f"{line[:80]!a} holds bytes that are not text: rename the file that they come from")
    return f"{line}\n"


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    _check_once([key for key, _ in pairs])
    return dict(pairs)


def _check_once(keys: list[str]) -> None:
    if len(set(keys)) < len(keys):
        twice = next(key for key, count in Counter(keys).items() if count > 1)
        raise ValueError(f"the key {_shown(twice)} is there twice")


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{_shown(text)} is too large a number")
    if _vanished(text, value):
        raise ValueError(f"{_shown(text)} is too small a number, which would be read as 0")
    return value


def _vanished(text: str, value: float) -> bool:
    """Whether a number that is not 0 has become 0."""
    return value == 0 and re.search("[1-9]", text.lower().partition("e")[0]) is not None


def _check_depth(value: Any, name: object) -> None:
    level, depth = [value], 0
    while level := [one for one in level if isinstance(one, dict | list)]:
        depth += 1
        if depth > DEEPEST:
            raise BadFile(f"{name} is nested more than {DEEPEST} levels deep")
        level = [part for one in level for part in (one.values() if isinstance(one, dict) else one)]


# --- YAML ------------------------------------------------------------------------------------------------------


def read_yaml(path: Path | str) -> Any:
    """The value in a YAML file. Raises `BadFile`."""
    return parse_yaml(read_text(path), name=path)


def read_toml(path: Path | str) -> dict[str, Any]:
    """The tables of a TOML file. Raises `BadFile`."""
    try:
        return tomllib.loads(read_text(path))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise BadFile(f"{path} is not TOML: {error}") from error


def parse_yaml(text: str, *, name: object) -> Any:
    """The value of a YAML text, in types that JSON has; a date is text. `name` stands for it in the `BadFile` for what
    is malformed, a key that is there twice, too long, too deep, or unfolds too far."""
    if len(text) > MOST_YAML:
        raise BadFile(f"{name} has more than {MOST_YAML} characters, more than settings have")
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _check_unfolded(node)
        return loader.construct_document(node)
    except RecursionError as error:
        raise BadFile(f"{name} is nested more than {DEEPEST} levels deep") from error
    except (yaml.YAMLError, ValueError, LookupError) as error:  # the last from types such as !!bool maybe
        raise BadFile(f"{name} cannot be read as YAML ({' '.join(str(error).split())})") from error


TAGS = frozenset(
    f"tag:yaml.org,2002:{tag}" for tag in ("null", "bool", "int", "float", "str", "seq", "map", "merge")
)
KEY_TAGS = frozenset({"tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"})


class _Loader(yaml.SafeLoader):
    """YAML without dates, whose mappings hold each key once."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag in TAGS]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_mapping_node(self, anchor: Any) -> Any:
        # Here, since merging puts the merged keys among the mapping's own.
        node = super().compose_mapping_node(anchor)
        _check_once([key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)])
        return node

    def construct_yaml_float(self, node: Any) -> float:
        value = super().construct_yaml_float(node)
        if not math.isfinite(value):
            raise ValueError(f"{_shown(node.value)} is not a finite number")
        if _vanished(node.value, value):
            raise ValueError(f"{_shown(node.value)} is too small a number, which would be read as 0")
        return value


_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_yaml_float)


def _check_unfolded(root: Any) -> None:
    """Refuse what is too much or too deep when every reference is a copy of what it refers to."""
    counted: dict[int, tuple[int, int]] = {}

    def measured(node: Any, depth: int) -> tuple[int, int]:
        if node.tag not in TAGS:
            raise ValueError(f"{node.tag} is not a type of settings")
        if isinstance(node, yaml.MappingNode):
            _check_keys([key for key, _ in node.value])
        if id(node) not in counted:
            if depth > DEEPEST:  # which a reference to what it is part of reaches too
                raise RecursionError
            inner = [measured(part, depth + 1) for part in _parts(node)]
            counted[id(node)] = 1 + sum(n for n, _ in inner), 1 + max((h for _, h in inner), default=0)
        if depth + counted[id(node)][1] > DEEPEST + 1:
            raise RecursionError
        return counted[id(node)]

    if measured(root, 0)[0] > MOST_NODES:
        raise ValueError("its references unfold to too much")


def _check_keys(keys: list[Any]) -> None:
    for key in keys:
        if key.tag not in KEY_TAGS:
            shown = _shown(key.value) if isinstance(key, yaml.ScalarNode) else "a list or mapping"
            raise ValueError(f"{shown} is a key, and keys are text: write it in quotes if it is meant")


def _parts(node: Any) -> list[Any]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return node.value if isinstance(node, yaml.SequenceNode) else []


# --- types -----------------------------------------------------------------------------------------------------


def typed(value: Any, kind: type[Kind], *, name: object) -> Kind:
    """`value`, if it is of the kind: str, int, float (finite; whole numbers are taken too), bool, list or dict.
    `BadFile` otherwise; `name` stands for it there."""
    if kind is float and type(value) in (int, float) and abs(value) <= sys.float_info.max:
        return float(value)  # type: ignore[return-value]
    if type(value) is kind and kind is not float:
        return value
    raise BadFile(f"{name} is {_shown(value)}: expected {KINDS[kind]}")


def field_of(values: dict[str, Any], key: str, kind: type[Kind], *, name: object) -> Kind:
    """The value of a key, of the kind, as `typed` has it; a missing one is a `BadFile` too."""
    if key not in values:
        raise BadFile(f"{name} has no {key!r}: expected {KINDS[kind]}")
    return typed(values[key], kind, name=f"{key} of {name}")


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an int of more digits than are printed
        text = f"one {type(value).__name__}"
    return text if len(text) <= 80 else f"{text[:77]}..."


# --- files -----------------------------------------------------------------------------------------------------


@contextmanager
def _opened(path: Path | str) -> Iterator[BinaryIO]:
    path = Path(path)
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise BadFile(f"{path} is not a plain file")
        with path.open("rb") as file:
            yield file
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        raise BadFile(f"{path} cannot be opened ({getattr(error, 'strerror', None) or error})") from error


def _decoded(content: bytes, name: object, *, mark: bool = True) -> str:
    try:
        return content.decode("utf-8-sig" if mark else "utf-8")
    except UnicodeDecodeError as error:
        raise BadFile(f"{name} is not UTF-8 text ({error.reason} at byte {error.start})") from error

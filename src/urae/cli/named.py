"""What a command line gives by name: name=VALUE, repeated for several."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from urae.errors import BadFile
from urae.io import parse_json, parse_yaml

__all__ = ["named", "options_from_json", "settings_from_yaml"]


def named(
    given: Sequence[str],
    what: str,
    *,
    value: str = "PATH",
    read: Callable[[str], Any] = Path,
    empty: bool = False,
) -> dict[str, Any]:
    """By name; ValueError for a text that is no name=VALUE, and for a name that is given twice. empty: whether a value
    may be, as in start=, which takes a recipe's own away."""
    by_name: dict[str, Any] = {}
    for text in given:
        name, equals, said = text.partition("=")
        if not (name and equals and (said or empty)):
            raise ValueError(f"{what} is {text!r}: expected name={value}")
        if name in by_name:
            raise ValueError(f"{what} {name!r} is given twice: expected each name once")
        by_name[name] = read(said)
    return by_name


def settings_from_yaml(given: Sequence[str], *, texts: Sequence[str]) -> dict[str, Any]:
    """Settings; the values of `texts` as they are, others as YAML: true, 0.5, {a: 1}, a word."""
    every = named(given, "setting", value="value", read=str)
    return {
        name: said if name in texts else parse_yaml(said, name=f"the setting {name}")
        for name, said in every.items()
    }


def options_from_json(given: Sequence[str], **usual: Any) -> dict[str, Any]:
    """Options of a request, with JSON values; `usual` ones where they are not given; null takes one out."""
    every = named(given, "option", value="VALUE, such as temperature=0.5", read=_json)
    return {name: value for name, value in {**usual, **every}.items() if value is not None}


def _json(text: str) -> Any:
    try:
        return parse_json(text, name=text)
    except BadFile as error:
        raise ValueError(
            f'the option\'s value {text!r} is not JSON: expected a number, null, or a "text"'
        ) from error

"""What stands beside an image: its captions, and where it came from.

A sidecar has the image's name and another ending. `.json` holds "prompt" (the caption that the image came with,
"caption" and "text" are read alike) and "generated_prompt" (the detailed one), as the published code has it, and
may hold "source", "licence", "teacher" and "time". `.txt` holds the caption alone; beside a `.json` without one
it completes it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from urae.data.record import Record
from urae.errors import BadFile
from urae.io import parse_json_object

__all__ = [
    "LONGEST",
    "SIDECAR_SUFFIXES",
    "Sidecar",
    "parse_sidecar",
    "parse_values",
    "read_sidecar",
    "sidecar_of",
]

SIDECAR_SUFFIXES = (".json", ".txt")
LONGEST = 2**20
"""Bytes; no caption is longer."""
CAPTION_KEYS = {"original": ("prompt", "caption", "text"), "detailed": ("generated_prompt",)}
FACT_KEYS = {"source": ("source", "url"), "licence": ("licence", "license"), "time": ("time",)}


@dataclass(frozen=True, kw_only=True)
class Sidecar:
    """Captions by kind, and of "source", "licence", "teacher" and "time" what is known."""

    captions: dict[str, str] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)


def read_sidecar(image: Path) -> Sidecar:
    """What stands beside an image file, which may be nothing. Raises `BadFile` for what cannot be understood."""
    files = {suffix: image.with_suffix(suffix) for suffix in SIDECAR_SUFFIXES}
    # Path.is_file raises where the image's name leaves no room for a longer ending.
    texts = {suffix: _content(path) for suffix, path in files.items() if os.path.isfile(path)}
    return parse_sidecar(texts, name=files[".json"] if ".json" in texts else files[".txt"])


def parse_sidecar(texts: dict[str, bytes], *, name: object) -> Sidecar:
    """The sidecar in the contents of a `.json` and a `.txt` file, either of which may be missing."""
    values = parse_json_object(texts[".json"], name=name) if ".json" in texts else {}
    beside = _decoded(texts.get(".txt", b""), name).strip()
    return parse_values(values, name=name, caption=beside)


def parse_values(values: dict[str, Any], *, name: object, caption: str = "") -> Sidecar:
    """The sidecar in a JSON object, whose caption, where it has none, is `caption`."""
    # LAION's columns are in capitals, and "?" is what it knows of most licences.
    told = {key: value for key, value in values.items() if value != "?"}
    values = {key.lower(): value for key, value in told.items()} | told
    captions = {kind: _text(values, keys, name) for kind, keys in CAPTION_KEYS.items()}
    captions["original"] = captions["original"] or caption
    facts: dict[str, Any] = {fact: _text(values, keys, name) for fact, keys in FACT_KEYS.items()}
    facts["teacher"] = _teacher(values.get("teacher"), name)
    return Sidecar(captions=_known(captions), facts=_known(facts))


def sidecar_of(record: Record) -> dict[str, Any]:
    """The JSON sidecar of a record."""
    names = {"original": "prompt", "detailed": "generated_prompt"}
    captions = {names[kind]: text for kind, text in record.captions.items()}
    facts = {name: getattr(record, name) for name in ("source", "licence", "teacher", "time")}
    return captions | _known(facts)


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(LONGEST + 1)
    except OSError as error:
        raise BadFile(f"{path} cannot be opened ({error.strerror})") from error
    if len(content) > LONGEST:
        raise BadFile(f"{path} has more than {LONGEST} bytes: expected a caption")
    return content


def _decoded(content: bytes, name: object) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadFile(f"{name} is not UTF-8 text ({error})") from error


def _text(values: dict[str, Any], keys: tuple[str, ...], name: object) -> str:
    """The first of these keys that has a value."""
    key = next((key for key in keys if values.get(key) is not None), None)
    if key is None:
        return ""
    if not isinstance(values[key], str):
        raise BadFile(f"{name} has {key} {values[key]!r}: expected text")
    return values[key].strip()


def _teacher(value: Any, name: object) -> dict[str, Any] | None:
    """An object, or one as JSON text where a table has no objects."""
    settings = (
        parse_json_object(value, name=f"the teacher of {name}") if isinstance(value, str) and value else value
    )
    if settings and not isinstance(settings, dict):
        raise BadFile(f"{name} has teacher {value!r}: expected the name of the model and its settings")
    return settings or None


def _known(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value}

"""What a study is: its prompts, its pictures under opaque names, and the key that says whose they are.

`study.json` in the study's folder. It holds the questions too, so that a study under way keeps its words. Nothing
of it but prompts, questions and opaque names ever reaches a rater.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from urae.errors import BadFile
from urae.io import read_json_object, write_text

__all__ = ["ASPECTS", "Aspect", "Encoding", "Study", "StudyItem", "read_study"]

VERSION = 1
MANIFEST = "study.json"
Encoding = Literal["png", "jpeg"]
SUFFIXES: Mapping[Encoding, str] = {"png": ".png", "jpeg": ".jpg"}


@dataclass(frozen=True, kw_only=True)
class Aspect:
    """One of the questions asked of every set of pictures."""

    name: str
    title: str
    question: str


ASPECTS = (
    Aspect(
        name="overall",
        title="Overall quality",
        question="Which is the best picture, all in all: shows what was asked for, and is well made?",
    ),
    Aspect(
        name="alignment",
        title="Prompt alignment",
        question="Which follows the prompt most closely: the things it names, how they look, how many, where? "
        "Beauty does not count here.",
    ),
    Aspect(
        name="aesthetics",
        title="Visual aesthetics",
        question="Which looks best: clear, rich in fine detail, well composed, free of flaws? "
        "The prompt does not count here.",
    ),
)
"""The aspects of the paper's study, in our own words."""


@dataclass(frozen=True, kw_only=True)
class StudyItem:
    """A prompt with each candidate's picture of it."""

    id: str
    prompt: str
    size: tuple[int, int]
    """(width, height) in pixels, the same for every candidate."""
    pictures: Mapping[str, str]
    """Opaque name -> candidate."""
    sources: Mapping[str, str]
    """Candidate -> SHA-256 of the file that was given."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """A study on the disk. Made by `build_study`, read by `read_study`."""

    folder: Path
    title: str
    candidates: tuple[str, ...]
    aspects: tuple[Aspect, ...]
    items: tuple[StudyItem, ...]
    encoding: Encoding
    """Of the native pictures; previews are always JPEG."""
    preview: int
    """Longest side of a preview, pixels."""

    @cached_property
    def pictures(self) -> Mapping[str, Path]:
        """Native picture of each opaque name."""
        return {name: self.folder / f"pictures/{name}{SUFFIXES[self.encoding]}" for name in self._names}

    @cached_property
    def previews(self) -> Mapping[str, Path]:
        """Reduced picture of each opaque name."""
        return {name: self.folder / f"previews/{name}.jpg" for name in self._names}

    @cached_property
    def item(self) -> Mapping[str, StudyItem]:
        """Item of each id."""
        return {item.id: item for item in self.items}

    @cached_property
    def _names(self) -> tuple[str, ...]:
        return tuple(name for item in self.items for name in item.pictures)

    def save(self) -> Path:
        """Write the manifest into the folder, for its owner alone: it says whose picture is whose."""
        path = self.folder / MANIFEST
        described = {"version": VERSION, **asdict(self)}
        del described["folder"]
        write_text(path, json.dumps(described, indent=2, ensure_ascii=False) + "\n")
        path.chmod(0o600)
        return path


def read_study(folder: Path | str) -> Study:
    """The study in `folder`; `ValueError` where there is none, `BadFile` where its manifest is damaged."""
    path = Path(folder) / MANIFEST
    if not path.is_file():
        raise ValueError(f"{folder} holds no study: expected a folder that `urae study build` has made")
    described = read_json_object(path)
    if described.pop("version", None) != VERSION:
        raise BadFile(f"{path} was written by another version of urae: expected version {VERSION}")
    try:
        return Study(folder=Path(folder), **_parsed(described))
    except (LookupError, TypeError, AttributeError) as error:
        raise BadFile(f"{path} is damaged ({error}): build the study again") from error


def _parsed(described: dict[str, Any]) -> dict[str, Any]:
    aspects = tuple(Aspect(**aspect) for aspect in described["aspects"])
    items = tuple(StudyItem(**{**item, "size": tuple(item["size"])}) for item in described["items"])
    for name in (name for item in items for name in item.pictures):
        # It becomes a path, and the site serves what lies there.
        if not re.fullmatch(r"[0-9a-f]{32}", name):
            raise LookupError(f"{name!r} is not the name of a picture")
    return {**described, "candidates": tuple(described["candidates"]), "aspects": aspects, "items": items}

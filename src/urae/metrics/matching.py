"""Pictures and prompts matched by name: a candidate's folder holds `<id>.png` for each prompt's id."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from urae.errors import BadFile

__all__ = ["SUFFIXES", "MatchedItem", "match_pictures", "read_prompts"]

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
"""Of the pictures that are looked for."""


@dataclass(frozen=True, kw_only=True)
class MatchedItem:
    """A prompt and each candidate's picture of it."""

    id: str
    prompt: str
    pictures: Mapping[str, Path]


def read_prompts(path: Path | str) -> dict[str, str]:
    """Prompts by id, from lines such as {"id": "lighthouse", "prompt": "a lighthouse at dusk"}."""
    prompts: dict[str, str] = {}
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        name, prompt = _prompt(line, f"line {number} of {path}")
        if name in prompts:
            raise BadFile(f"line {number} of {path} has the id {name!r} again: expected each id once")
        prompts[name] = prompt
    if not prompts:
        raise BadFile(f"{path} holds no prompts")
    return prompts


def match_pictures(
    candidates: Mapping[str, Path], prompts: Mapping[str, str]
) -> tuple[list[MatchedItem], dict[str, list[str]]]:
    """Each prompt with the picture `<id>.png` (or .jpg, .jpeg, .webp) of each candidate's folder.

    Also returns, by candidate, the pictures that belong to no prompt. `ValueError` where one is missing or there
    are two.
    """
    found = {name: _pictures(Path(folder), name) for name, folder in candidates.items()}
    for name, files in found.items():
        if missing := [prompt for prompt in prompts if prompt not in files]:
            raise ValueError(
                f"{name} has no picture for {len(missing)} of {len(prompts)} prompts, such as {missing[0]!r}: "
                f"expected a file like {candidates[name]}/{missing[0]}.png"
            )
    unused = {
        name: sorted(str(files[stem]) for stem in files.keys() - prompts.keys())
        for name, files in found.items()
    }
    items = [
        MatchedItem(id=name, prompt=prompt, pictures={c: files[name] for c, files in found.items()})
        for name, prompt in prompts.items()
    ]
    return items, unused


def _prompt(line: str, place: str) -> tuple[str, str]:
    try:
        record = json.loads(line)
        name, prompt = record["id"], record["prompt"]
    except (ValueError, KeyError, TypeError) as error:
        raise BadFile(f'{place} is no prompt: expected {{"id": ..., "prompt": ...}}') from error
    if not (isinstance(name, str) and isinstance(prompt, str) and name and prompt):
        raise BadFile(f"{place} is no prompt: expected id and prompt to be texts")
    return name, prompt


def _pictures(folder: Path, name: str) -> dict[str, Path]:
    if not folder.is_dir():
        raise ValueError(f"candidate {name} is {folder}: expected a folder of pictures")
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in SUFFIXES:
            continue
        if path.stem in files:
            raise ValueError(
                f"{name} has two pictures for {path.stem!r}: {files[path.stem].name} and {path.name}"
            )
        files[path.stem] = path
    return files

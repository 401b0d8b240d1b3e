"""Pictures that are there, of any model, by the prompts and seeds that they are compared under."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from urae.metrics.matching import pictures_by_id, pictures_by_request

__all__ = ["candidate_pictures"]


def candidate_pictures(
    folders: Mapping[str, Path], texts: list[str] | dict[str, str], seeds: Sequence[int]
) -> dict[str, list[Path]]:
    """Each candidate's picture of every prompt with every seed, all seeds of the first prompt first. Where prompts have
    ids, pictures are found by those, else by what urae has written into them. `ValueError` for one that is missing."""
    return {name: _pictures(name, folder, texts, seeds) for name, folder in folders.items()}


def _pictures(name: str, folder: Path, texts: list[str] | dict[str, str], seeds: Sequence[int]) -> list[Path]:
    if isinstance(texts, dict):
        by_id = pictures_by_id(name, folder)
        wanted = [(id, f"{id}-seed{seed}") for id in texts for seed in seeds]
        usual = {id: by_id.get(id) if len(seeds) == 1 else None for id in texts}
        there = [by_id.get(stem) or usual[id] for id, stem in wanted]
        names = [f"{folder}/{id if len(seeds) == 1 else stem}.png" for id, stem in wanted]
    else:
        by_request = pictures_by_request(name, folder)
        there = [by_request.get((text, str(seed))) for text in texts for seed in seeds]
        names = [f"a picture of {text!r} with seed {seed}" for text in texts for seed in seeds]
    if None in there:
        lacking = names[there.index(None)]
        raise ValueError(f"{name} lacks {there.count(None)} of {len(there)} pictures: expected {lacking}")
    return [path for path in there if path]

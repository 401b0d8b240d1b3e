"""Seeds as a user writes them: numbers, and ranges of them."""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["MOST_SEEDS", "seeds_of"]

MOST_SEEDS = 10_000
"""Of one range: more are a slip of the finger."""


def seeds_of(given: int | str | Sequence[int | str]) -> list[int]:
    """The seeds of 7, "0-3", "1, 4, 10-12" or a list of these, in order; ValueError for anything else, and for a seed
    that is there twice."""
    parts = [given] if isinstance(given, str) or not isinstance(given, Sequence) else list(given)
    seeds = [seed for part in parts for seed in _seeds(part)]
    if not seeds:
        raise ValueError("seed is an empty list: expected at least one")
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"seed {next(s for s in seeds if seeds.count(s) > 1)} is given twice: give it once")
    return seeds


def _seeds(given: int | str) -> list[int]:
    if not isinstance(given, str):
        return [given]
    seeds: list[int] = []
    for part in given.split(","):
        ends = re.fullmatch(r"\s*(-?\d{1,20})(?:\s*-\s*(\d{1,20}))?\s*", part)
        if not ends:
            raise ValueError(f"seed is {given!r}: expected whole numbers or ranges, such as 0-7 or 1,4,10-12")
        first, last = int(ends[1]), int(ends[2] or ends[1])
        if not 0 <= last - first < MOST_SEEDS:
            raise ValueError(
                f"seed has the range {part.strip()}: expected a rising one of at most {MOST_SEEDS}"
            )
        seeds += range(first, last + 1)
    return seeds

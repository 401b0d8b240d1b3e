"""Speeds in words: "exact", and the caches that leave out most of the transformer's work.

Neighbouring steps predict nearly the same, so that some can be had from others: faster pictures, which differ a
little. `TaylorSeer` extrapolates the velocity over steps fixed beforehand; `FirstBlock` repeats what the later blocks
added, where the first block sees little change. `urae.execution.cache_hooks` puts them on a transformer; here nothing
is imported, so that whoever only names a speed need not wait for torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Protocol

__all__ = ["CACHES", "FirstBlock", "Speed", "StepCache", "TaylorSeer", "cache_of", "speed_text"]


class StepCache(Protocol):
    """Which steps are computed in full, and what stands in for the others."""

    name: ClassVar[str]
    warm_up: ClassVar[int]
    """Steps at the beginning that are always computed."""

    def num_computed(self, steps: int) -> int | None:
        """How many of `steps` steps are computed in full; None where the picture decides."""


@dataclass(frozen=True, kw_only=True)
class TaylorSeer:
    """One step of `interval` is computed, and between them the velocity is extrapolated (TaylorSeer, the variant that
    diffusers calls lite: no block runs at all)."""

    name: ClassVar[str] = "taylorseer"
    warm_up: ClassVar[int] = 3

    interval: int = 4
    """Steps from one that is computed to the next; 2 or more."""
    order: int = 2
    """Order of the extrapolation: 0 repeats the last velocity, 1 goes on in a straight line, 2 in a curve."""

    def __post_init__(self) -> None:
        if not (isinstance(self.interval, int) and self.interval >= 2):
            raise ValueError(f"interval is {self.interval!r}: expected a whole number of 2 or more")
        if self.order not in (0, 1, 2):
            raise ValueError(f"order is {self.order!r}: expected 0, 1 or 2")

    def num_computed(self, steps: int) -> int | None:
        """The first three steps, then one of `interval`."""
        return sum(
            step < self.warm_up or (step - self.warm_up - 1) % self.interval == 0 for step in range(steps)
        )


@dataclass(frozen=True, kw_only=True)
class FirstBlock:
    """The first block runs in every step; where it does nearly what it did, the others' part is repeated (First Block
    Cache)."""

    name: ClassVar[str] = "first-block"
    warm_up: ClassVar[int] = 1

    threshold: float = 0.12
    """Largest change of the first block's residual, relative, at which the others are left out; above 0."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.threshold) and self.threshold > 0):
            raise ValueError(f"threshold is {self.threshold}: expected a number above 0, such as 0.12")

    def num_computed(self, steps: int) -> int | None:
        """The picture decides."""
        return None


CACHES: Mapping[str, Any] = {"taylorseer": TaylorSeer, "first-block": FirstBlock}
"""The caches' classes by name."""


Speed = str | StepCache
"""exact, fast, or a cache: an object such as `TaylorSeer(interval=3)`, or its text "taylorseer:interval=3"."""


def cache_of(speed: Speed) -> StepCache | None:
    """The cache that a speed stands for, what its text leaves out by default; None for "exact".

    ValueError for an unknown name or setting, with the valid ones.
    """
    if isinstance(speed, tuple(CACHES.values())):
        return speed  # type: ignore[return-value]
    if speed in ("exact", "fast"):
        return None if speed == "exact" else TaylorSeer()
    name, _, settings = speed.partition(":") if isinstance(speed, str) else ("", "", "")
    if name not in CACHES:
        raise ValueError(f"speed is {speed!r}: expected exact, fast or a cache, {' or '.join(CACHES)}")
    given = [_setting(name, pair) for pair in settings.split(",") if pair]
    if len(dict(given)) < len(given):
        raise ValueError(f"speed is {speed!r}: expected each setting once")
    return CACHES[name](**dict(given))


def speed_text(cache: StepCache | None) -> str:
    """What decides the pixels, as `cache_of` reads it and PNGs hold it: "exact", or the cache with all its settings."""
    if cache is None:
        return "exact"
    settings = ",".join(f"{field.name}={getattr(cache, field.name)}" for field in fields(CACHES[cache.name]))
    return f"{cache.name}:{settings}"


def _setting(name: str, pair: str) -> tuple[str, Any]:
    kinds: dict[str, Any] = {field.name: type(field.default) for field in fields(CACHES[name])}
    setting, separator, text = pair.partition("=")
    if not separator or setting not in kinds:
        raise ValueError(f"{pair!r} is not a setting of {name}: expected {' or '.join(kinds)}, as name=value")
    try:
        return setting, kinds[setting](text)
    except ValueError as error:
        kind = "a whole number" if kinds[setting] is int else "a number"
        raise ValueError(f"{setting} is {text!r}: expected {kind}") from error

"""Caches of diffusers that leave out most of the transformer's work: faster pictures, which differ a little.

Neighbouring steps predict nearly the same, so that some can be had from others. `TaylorSeer` extrapolates the
velocity over steps fixed beforehand; `FirstBlock` repeats what the later blocks added, where the first block sees
little change. A cache is put on for one picture and taken off again, so none remembers another picture or pass.

Calls that come at the same place in each step and hold as many tokens share one memory: windows of a tiled picture
and shifted patches, which call the transformer differently in turn, never see each other's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Protocol

import torch
from diffusers.hooks import FirstBlockCacheConfig, TaylorSeerCacheConfig
from torch import nn

from urae.execution.forward import forward_replaced

__all__ = [
    "CACHES",
    "Cache",
    "FirstBlock",
    "TaylorSeer",
    "attributes_kept",
    "cache_named",
    "cache_text",
    "cached",
    "check_free",
    "is_compiled",
]


class Cache(Protocol):
    """Which steps are computed in full, and what stands in for the others."""

    name: ClassVar[str]
    warm_up: ClassVar[int]
    """Steps at the beginning that are always computed."""

    def num_computed(self, steps: int) -> int | None:
        """How many of `steps` steps are computed in full; None where the picture decides."""

    def config(self) -> Any:
        """The same in diffusers' words."""


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

    def config(self) -> TaylorSeerCacheConfig:
        """What is kept are velocities, so keeping them in fp32 costs nothing, and their differences are small."""
        return TaylorSeerCacheConfig(
            cache_interval=self.interval,
            disable_cache_before_step=self.warm_up,
            max_order=self.order,
            taylor_factors_dtype=torch.float32,
            use_lite_mode=True,
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

    def config(self) -> FirstBlockCacheConfig:
        """Its threshold is this one."""
        return FirstBlockCacheConfig(threshold=self.threshold)


CACHES: Mapping[str, Any] = {"taylorseer": TaylorSeer, "first-block": FirstBlock}
"""The caches' classes by name."""


def cache_named(text: str) -> Any:
    """The cache that `cache_text` writes, such as "taylorseer:interval=3,order=1"; what is left out has its default.

    ValueError for an unknown name or setting, with the valid ones.
    """
    name, _, settings = text.partition(":")
    if name not in CACHES:
        raise ValueError(f"speed is {text!r}: expected exact, fast or a cache, {' or '.join(CACHES)}")
    return CACHES[name](**dict(_setting(name, pair) for pair in settings.split(",") if pair))


def cache_text(cache: Cache) -> str:
    """A cache with all its settings, as command lines and PNGs have it."""
    settings = ",".join(f"{field.name}={getattr(cache, field.name)}" for field in fields(CACHES[cache.name]))
    return f"{cache.name}:{settings}"


@contextmanager
def cached(transformer: Any, cache: Cache, on_step: Callable[[], None]) -> Iterator[Callable[[], None]]:
    """Run a stock transformer with `cache` for one picture; yields what to call after each step in place of `on_step`.

    All is as before on exit, attribute by attribute. `check_free` says whether it can be had.
    """
    place = 0

    def step_done() -> None:
        nonlocal place
        place = 0
        on_step()

    def remembering(forward: Callable[..., Any]) -> Callable[..., Any]:
        def call(*, hidden_states: torch.Tensor, **settings: Any) -> Any:
            nonlocal place
            shape = "x".join(map(str, hidden_states.shape))
            # Named here and not left to the pipeline: stock image-to-image names nothing, and caches then fail.
            with transformer.cache_context(f"call {place} of {shape}"):
                place += 1
                return forward(hidden_states=hidden_states, **settings)

        return call

    with attributes_kept(transformer):
        transformer.enable_cache(cache.config())
        try:
            with forward_replaced(transformer, remembering, what="a cache"):
                yield step_done
        finally:
            transformer.disable_cache()


def is_compiled(transformer: Any) -> bool:
    """Whether its owner has compiled a transformer, whole or by blocks, in place or around it."""
    return hasattr(transformer, "_orig_mod") or any(
        getattr(module, "_compiled_call_impl", None) for module in transformer.modules()
    )


def check_free(transformer: Any, cache: Cache) -> None:
    """Raise ValueError for a transformer that is compiled, for one that has a cache already, and for one that diffusers
    has no such cache for."""
    if not hasattr(transformer, "enable_cache"):
        raise ValueError(
            f"{cache.name} is not to be had: diffusers has no caches for {type(transformer).__name__}; use exact"
        )
    if transformer.is_cache_enabled:
        raise ValueError(
            f"{cache.name} is a second cache on a transformer that has one: call its disable_cache() first"
        )
    if is_compiled(transformer):
        # torch.compile does not guard on what the hooks of a cache do.
        raise ValueError(
            f"{cache.name} works by hooks, which a compiled transformer may ignore: give it as it is, and let "
            "generate compile its blocks (compile=True)"
        )
    _check_known(transformer, cache)


def _check_known(transformer: Any, cache: Cache) -> None:
    """By trying: some caches work by the blocks' classes, of which diffusers keeps a list."""
    with attributes_kept(transformer):
        try:
            transformer.enable_cache(cache.config())
        except ValueError as error:
            raise ValueError(
                f"{cache.name} is not to be had: diffusers knows no such cache for {type(transformer).__name__} "
                f"({error}); use {' or '.join(name for name in CACHES if name != cache.name)}, or exact"
            ) from error
        transformer.disable_cache()


def _setting(name: str, pair: str) -> tuple[str, Any]:
    kinds: dict[str, Any] = {field.name: type(field.default) for field in fields(CACHES[name])}
    setting, separator, text = pair.partition("=")
    if not separator or setting not in kinds:
        raise ValueError(f"{pair!r} is no setting of {name}: expected {' or '.join(kinds)}, as name=value")
    try:
        return setting, kinds[setting](text)
    except ValueError as error:
        kind = "a whole number" if kinds[setting] is int else "a number"
        raise ValueError(f"{setting} is {text!r}: expected {kind}") from error


@contextmanager
def attributes_kept(transformer: nn.Module) -> Iterator[None]:
    """Put back what hooks and compiling replace in a transformer's modules; diffusers leaves a bound forward there, and
    the registry of its hooks, after the hooks are gone."""
    names = ("forward", "_diffusers_hook", "_cache_config")
    before = [
        (module, {name: vars(module)[name] for name in names if name in vars(module)})
        for module in transformer.modules()
    ]
    try:
        yield
    finally:
        for module, values in before:
            for name in names:
                vars(module).pop(name, None)
            vars(module).update(values)

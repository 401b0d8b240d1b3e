"""A cache of diffusers (`urae.execution.caches`) on a transformer, for one picture: none remembers another picture or
pass.

Calls that come at the same place in each step and hold as many tokens share one memory: windows of a tiled picture
and shifted patches, which call the transformer differently in turn, never see each other's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers.hooks import FirstBlockCacheConfig, TaylorSeerCacheConfig

from urae.execution.caches import CACHES, StepCache, TaylorSeer
from urae.execution.modules import attributes_kept, forward_replaced, hooks_of, is_compiled

__all__ = ["cached", "check_free"]


@contextmanager
def cached(transformer: Any, cache: StepCache, on_step: Callable[[], None]) -> Iterator[Callable[[], None]]:
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
        transformer.enable_cache(_config(cache))
        try:
            with forward_replaced(transformer, remembering, what="a cache"):
                yield step_done
        finally:
            transformer.disable_cache()


def check_free(transformer: Any, cache: StepCache) -> None:
    """Raise ValueError for a transformer that is compiled, for one that has a cache already, and for one that diffusers
    has no such cache for."""
    if not hasattr(transformer, "enable_cache"):
        raise ValueError(
            f"{cache.name} is not available: diffusers has no caches for {type(transformer).__name__}; use exact"
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


def _check_known(transformer: Any, cache: StepCache) -> None:
    """By trying: some caches work by the blocks' classes, of which diffusers keeps a list."""
    with attributes_kept(transformer):
        try:
            transformer.enable_cache(_config(cache))
            _check_blocks(transformer)
        except ValueError as error:
            others = " or ".join(name for name in CACHES if name != cache.name)
            raise ValueError(
                f"{cache.name} is not available: diffusers knows no such cache for {type(transformer).__name__} "
                f"({error}); use {others}, or exact"
            ) from error
        transformer.disable_cache()


def _check_blocks(transformer: Any) -> None:
    """Raise ValueError where a cache would subtract what its first and its last block return, which are not alike: in
    FLUX.2 the first keeps text and image apart, and the last does not (huggingface/diffusers, issue 14280)."""
    known = [
        getattr(hook, "_metadata", None) for part in transformer.modules() for hook in hooks_of(part).values()
    ]
    if len({one.return_encoder_hidden_states_index is None for one in known if one}) > 1:
        transformer.disable_cache()
        raise ValueError("some of its blocks keep text and image apart and others do not")


def _config(cache: Any) -> Any:
    """The same in diffusers' words."""
    if not isinstance(cache, TaylorSeer):
        return FirstBlockCacheConfig(threshold=cache.threshold)
    return TaylorSeerCacheConfig(
        cache_interval=cache.interval,
        disable_cache_before_step=cache.warm_up,
        max_order=cache.order,
        taylor_factors_dtype=torch.float32,  # costs nothing, for what is kept are velocities: differences are small
        use_lite_mode=True,
    )

"""The timestep shift: static while a policy is on, and a warning where the stock dynamic one goes astray.

FLUX.1 ships with a shift exp(mu) in which mu is linear in the number of image tokens. It was fitted between
256 and 1024 px; followed further it reaches 25 at 2048 px and 104,000 at 4096 px, where every step
runs at next to pure noise. In today's diffusers neither `scheduler.config.shift` nor `time_shift` can be set
on a live scheduler, so the static one is built anew from its config.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
from torch import nn

from urae.families.registry import family_of
from urae.resolution.embedding import embedding_replaced, embedding_stock
from urae.resolution.policy import ResolutionPolicy
from urae.resolution.sizes import check_size, pixels_per_token

__all__ = [
    "dynamic_shift",
    "near_noise_share",
    "own_shift",
    "policy_on",
    "scheduler_replaced",
    "shifted_sigmas",
    "warn_dynamic_shift",
    "without_policy",
]

MAX_DYNAMIC_SHIFT = 10.0
"""Above this value of exp(mu) a pipeline's dynamic shift is warned about."""


@contextmanager
def policy_on(target: Any, policy: ResolutionPolicy) -> Iterator[None]:
    """`ResolutionPolicy.on`."""
    with ExitStack() as stack:
        transformer = target
        if not isinstance(target, nn.Module):
            transformer, stock = target.transformer, _stock_scheduler(target)
            static = family_of(target).schedule.static(stock, policy.shift)
            stack.enter_context(scheduler_replaced(target, static))
        stack.enter_context(embedding_replaced(transformer, policy))
        yield


@contextmanager
def without_policy(pipe: Any) -> Iterator[None]:
    """Run `pipe` as it was before any policy, inside one as well; the policy is back on exit."""
    with scheduler_replaced(pipe, _stock_scheduler(pipe)), embedding_stock(pipe.transformer):
        yield


def own_shift(pipe: Any) -> float:
    """The static shift that belongs to the checkpoint: 3.0 for FLUX.1-dev, 1.0 for schnell."""
    return family_of(pipe).schedule.own_shift(pipe, _stock_scheduler(pipe))


def dynamic_shift(pipe: Any, size: int | Sequence[int], *, steps: int = 28) -> float:
    """The shift a that the pipeline will use at `size`, sigma -> a sigma / (1 + (a - 1) sigma).

    For a scheduler with dynamic shifting it is exp(mu): 3.16 for FLUX.1-dev at 1024 px, 25.3 at 2048 px.
    """
    sides = check_size(size, multiple=pixels_per_token(pipe))
    return family_of(pipe).schedule.shift(pipe, sides, steps)


def shifted_sigmas(shift: float, *, steps: int) -> np.ndarray:
    """The noise levels (steps,) at which a stock flow-matching pipeline calls the model, from 1 downwards."""
    if steps < 1:
        raise ValueError(f"steps is {steps}: expected 1 or more")
    sigmas = np.linspace(1.0, 1 / steps, steps)
    return shift * sigmas / (1 + (shift - 1) * sigmas)


def near_noise_share(shift: float, *, steps: int, above: float = 0.99) -> float:
    """Share in [0, 1] of the steps at sigma > `above`, where the model sees next to nothing but noise."""
    return float((shifted_sigmas(shift, steps=steps) > above).mean())


def warn_dynamic_shift(pipe: Any, size: int | Sequence[int], *, steps: int = 28) -> None:
    """Warn, with the number, if `pipe` is about to run a dynamic shift above exp(mu) = 10 at `size`."""
    if not pipe.scheduler.config.get("use_dynamic_shifting"):
        return
    shift = dynamic_shift(pipe, size, steps=steps)
    if shift > MAX_DYNAMIC_SHIFT:
        width, height = check_size(size, multiple=pixels_per_token(pipe))
        share = near_noise_share(shift, steps=steps)
        warnings.warn(
            f"the dynamic timestep shift is {shift:,.1f} at {width}x{height}: {share:.0%} of {steps} steps "
            "run at sigma > 0.99; use a ResolutionPolicy, which makes it static",
            stacklevel=2,
        )


@contextmanager
def scheduler_replaced(pipe: Any, scheduler: Any) -> Iterator[None]:
    """Run `pipe` with another scheduler; the one before is back on exit.

    Policies that are entered or left inside start from the scheduler that the pipeline came with.
    """
    before = pipe.scheduler
    if scheduler is not _stock_scheduler(pipe):
        scheduler.stock = _stock_scheduler(pipe)
    pipe.scheduler = scheduler
    try:
        yield
    finally:
        pipe.scheduler = before


def _stock_scheduler(pipe: Any) -> Any:
    return getattr(pipe.scheduler, "stock", pipe.scheduler)

"""The timestep shift: static while a policy is on, and a warning where the stock dynamic one goes astray.

FLUX.1 ships with a shift exp(mu) in which mu is linear in the number of image tokens. It was fitted between
256 and 1024 px; followed further it reaches 25 at 2048 px and 104,000 at 4096 px, where every step
runs at next to pure noise. In today's diffusers neither `scheduler.config.shift` nor `time_shift` can be set
on a live scheduler, so the static one is built anew from its config.
"""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from diffusers.pipelines.flux.pipeline_flux import calculate_shift

from urae.resolution.sizes import Pipeline, check_size, num_image_tokens

__all__ = [
    "dynamic_shift",
    "near_noise_share",
    "scheduler_replaced",
    "shift_replaced",
    "shift_stock",
    "shifted_sigmas",
    "stock_shift",
    "warn_dynamic_shift",
]

MAX_DYNAMIC_SHIFT = 10.0
"""Above this value of exp(mu) a pipeline's dynamic shift is warned about."""


@contextmanager
def shift_replaced(pipe: Pipeline, shift: float) -> Iterator[None]:
    """Run `pipe` with a static `shift`; the scheduler object before is back on exit, with its state."""
    with scheduler_replaced(pipe, _with_static_shift(_stock_scheduler(pipe), shift)):
        yield


@contextmanager
def shift_stock(pipe: Pipeline) -> Iterator[None]:
    """Run `pipe` with the scheduler that it came with, inside `shift_replaced` as well."""
    with scheduler_replaced(pipe, _stock_scheduler(pipe)):
        yield


def stock_shift(pipe: Pipeline) -> float:
    """The static shift in the checkpoint's scheduler: 3.0 for FLUX.1-dev, 1.0 for schnell."""
    scheduler = _stock_scheduler(pipe)
    _check_can_be_static(scheduler)
    return float(scheduler.config.shift)


def dynamic_shift(pipe: Pipeline, size: int | Sequence[int]) -> float:
    """The shift a that the pipeline will use at `size`, sigma -> a sigma / (1 + (a - 1) sigma).

    For a scheduler with dynamic shifting it is exp(mu): 3.16 for FLUX.1-dev at 1024 px, 25.3 at 2048 px.
    """
    config = pipe.scheduler.config
    if not config.get("use_dynamic_shifting"):
        return float(config.shift)
    # The same defaults as in the pipeline, for schedulers that lack a setting.
    mu = calculate_shift(
        num_image_tokens(size),
        config.get("base_image_seq_len", 256),
        config.get("max_image_seq_len", 4096),
        config.get("base_shift", 0.5),
        config.get("max_shift", 1.15),
    )
    return math.exp(mu) if config.time_shift_type == "exponential" else mu


def shifted_sigmas(shift: float, *, steps: int) -> np.ndarray:
    """The noise levels (steps,) at which a stock FLUX pipeline calls the model, from 1 downwards."""
    if steps < 1:
        raise ValueError(f"steps is {steps}: expected 1 or more")
    sigmas = np.linspace(1.0, 1 / steps, steps)
    return shift * sigmas / (1 + (shift - 1) * sigmas)


def near_noise_share(shift: float, *, steps: int, above: float = 0.99) -> float:
    """Share in [0, 1] of the steps at sigma > `above`, where the model sees next to nothing but noise."""
    return float((shifted_sigmas(shift, steps=steps) > above).mean())


def warn_dynamic_shift(pipe: Pipeline, size: int | Sequence[int], *, steps: int = 28) -> None:
    """Warn, with the number, if `pipe` is about to run a dynamic shift above exp(mu) = 10 at `size`."""
    if not pipe.scheduler.config.get("use_dynamic_shifting"):
        return
    shift = dynamic_shift(pipe, size)
    if shift > MAX_DYNAMIC_SHIFT:
        width, height = check_size(size)
        share = near_noise_share(shift, steps=steps)
        warnings.warn(
            f"the dynamic timestep shift is {shift:,.1f} at {width}x{height}: {share:.0%} of {steps} steps "
            "run at sigma > 0.99; use a ResolutionPolicy, which makes it static",
            stacklevel=2,
        )


@contextmanager
def scheduler_replaced(pipe: Pipeline, scheduler: Any) -> Iterator[None]:
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


def _stock_scheduler(pipe: Pipeline) -> Any:
    return getattr(pipe.scheduler, "stock", pipe.scheduler)


def _with_static_shift(scheduler: Any, shift: float) -> Any:
    _check_can_be_static(scheduler)
    return type(scheduler).from_config(scheduler.config, use_dynamic_shifting=False, shift=shift)


def _check_can_be_static(scheduler: Any) -> None:
    settings = inspect.signature(type(scheduler).__init__).parameters
    if "shift" not in settings or "use_dynamic_shifting" not in settings:
        raise ValueError(
            f"{type(scheduler).__name__} has no static timestep shift: give the pipeline a "
            "FlowMatchEulerDiscreteScheduler before a resolution policy"
        )

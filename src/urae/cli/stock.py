"""`urae generate` with a model to compare with, PixArt-Sigma or Sana: their own pipeline, and nothing of ours."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch

from urae.cli.pictures import Pictures
from urae.execution import MemoryPlan, this_process
from urae.families import DTYPES
from urae.generation.stock import generate_stock, open_stock, stock_of
from urae.io import Progress
from urae.resolution import Size

__all__ = ["draw_stock"]


def draw_stock(
    model: str,
    prompts: list[str],
    pictures: Pictures,
    *,
    size: Size,
    seeds: list[int],
    steps: int | None,
    guidance: float | None,
    dtype: str,
    offload: str,
    decode: str,
    ours: Mapping[str, object],
) -> None:
    """Draw and save. `ours`: options by name that only FLUX understands, false if not given."""
    stock = stock_of(model)
    assert stock
    if given := [name for name, value in ours.items() if value]:
        raise ValueError(
            f"--{given[0]} has no effect on a {stock.name}, which runs as it comes: leave it out"
        )
    num_steps = stock.steps if steps is None else steps
    plan = _plan(offload, decode)
    pipe = open_stock(model, dtype=_dtype(dtype))
    pipe.set_progress_bar_config(disable=True)
    state, total = this_process(), len(prompts) * len(seeds) * num_steps
    with Progress("generating", total=total, show=state.is_main_process) as progress:
        generate_stock(
            pipe,
            prompts,
            size=size,
            seeds=seeds,
            steps=num_steps,
            guidance=guidance,
            memory=plan,
            choose=partial(
                pictures.choose, expect=lambda num: progress.expect(num * num_steps), say=progress.say
            ),
            on_step=progress.advance,
            on_image=pictures.save,
        )


def _dtype(name: str) -> torch.dtype:
    if name == "auto":
        return torch.bfloat16 if torch.cuda.is_available() else torch.float32
    if name not in DTYPES:
        raise ValueError(f"dtype is {name!r}: expected one of auto, {', '.join(DTYPES)}")
    return DTYPES[name]


def _plan(offload: str, decode: str) -> MemoryPlan:
    """Whole on the GPU where there is one: these models are small beside FLUX."""
    way: Any = "whole" if decode == "auto" else decode
    on_cuda = torch.cuda.is_available()
    chosen: Any = offload if offload != "auto" else "none" if on_cuda else "unchanged"
    return MemoryPlan(device=str(this_process().device) if on_cuda else "cpu", offload=chosen, decode=way)

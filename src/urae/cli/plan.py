"""`urae plan`: what a training run needs, before it is begun."""

from __future__ import annotations

import math
from typing import Annotated, Any

import typer

from urae import data, execution, planning
from urae.cli.printed import say
from urae.cli.train import chosen_recipe
from urae.recipes import RECIPES

__all__ = ["plan"]


def plan(
    recipe: Annotated[str, typer.Argument(help=f"{', '.join(RECIPES)}, or a YAML file.")],
    changes: Annotated[
        list[str] | None, typer.Argument(help="Changes as key=value, such as gradient_accumulation=8.")
    ] = None,
    gpu: Annotated[
        str, typer.Option(help=f"One of {', '.join(planning.GPUS)}; by default this machine's own.")
    ] = "",
    memory: Annotated[float, typer.Option(help="Memory of another GPU, GiB; with --tflops.")] = 0.0,
    tflops: Annotated[
        float, typer.Option(help="Rate of another GPU, dense bf16, 10^12 operations a second.")
    ] = 0.0,
    gpus: Annotated[int, typer.Option(min=1, help="How many of them.")] = 1,
    price: Annotated[float, typer.Option(min=0, max=1e6, help="Price of one GPU for one hour.")] = 0.0,
    host_memory: Annotated[
        float,
        typer.Option(min=0, help="GiB of the machine that the GPUs are in; no limit by default."),
    ] = math.inf,
    images: Annotated[
        int, typer.Option(min=0, help="Number of images, to count the disk; by default those in the data.")
    ] = 0,
) -> dict[str, Any]:
    """Say whether a run fits on a GPU, which settings make it fit, how long it takes and what it costs.

    The second line is a summary. Only configurations are loaded or downloaded. Time rests on the share of the GPU's
    peak rate that benchmarks/gpu.py measured, or on an assumption; the plan says which.

    Example: urae plan flux_4k --gpu H200 --gpus 8 --price 3.5

    Another GPU: urae plan flux_2k gradient_accumulation=8 --memory 24 --tflops 165
    """
    chosen = chosen_recipe(recipe, changes or [])
    made = planning.plan(
        chosen,
        _gpu(gpu, memory, tflops),
        num_gpus=gpus,
        price=price,
        host_memory=host_memory,
        num_images=images or data.num_images(chosen.data),
    )
    say(planning.report(made))
    return planning.as_json(made)


def _gpu(name: str, memory: float, tflops: float) -> planning.Gpu:
    if name and not (memory or tflops):
        return planning.gpu_named(name)
    if not (name or memory or tflops) and (here := execution.this_process().device).type == "cuda":
        return planning.gpu_here(here)
    if name or not (memory and tflops):
        raise ValueError("which GPU? give either --gpu H200, or --memory 24 and --tflops 165")
    return planning.Gpu(name=f"{memory:g} GiB GPU", memory=memory, tflops=tflops)

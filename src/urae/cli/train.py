"""`urae train`: a recipe by name or from a file, with changes by key, trained to an adapter."""

from __future__ import annotations

import difflib
import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from urae import data, execution, families, generation, planning, training
from urae.cli.named import named
from urae.cli.printed import say
from urae.io import check_can_write
from urae.recipes import RECIPES

if TYPE_CHECKING:
    from urae.training import Recipe, TrainingPlan

__all__ = ["chosen_recipe", "train"]


def train(
    recipe: Annotated[str, typer.Argument(help=f"{', '.join(RECIPES)}, or a YAML file.")],
    changes: Annotated[
        list[str] | None, typer.Argument(help="Changes as key=value, such as steps=50 adapter.rank=8.")
    ] = None,
    model: Annotated[
        str, typer.Option(help="mini, a diffusers folder or a hub id; by default the recipe's own.")
    ] = "",
    anyway: Annotated[bool, typer.Option(help="Start even if the plan says that it cannot fit.")] = False,
) -> None:
    """Train an adapter. Stopped at any moment, the same command continues where it was.

    Example: urae train mini_2x out=out/mini_2x steps=50 adapter.rank=8

    Several GPUs: torchrun --nproc-per-node 8 --no-python urae train flux_2k
    """
    chosen = chosen_recipe(recipe, changes or [])
    chosen = replace(chosen, model=model) if model else chosen
    check_can_write(chosen.out, folder=True)
    state = execution.this_process()
    if state.device.type == "cuda":
        _check_fits(chosen, anyway=anyway)
    training.check_inputs(chosen)  # a large model takes half a minute to load
    dtype = "float32" if chosen.base_dtype == "fp32" else "auto"
    pipe = execution.first_here(lambda: families.open_pipeline(chosen.model, dtype=dtype))
    plan = training.plan_training(pipe, chosen)
    if state.is_main_process:
        say(plan)
    training.run_training(plan)
    if state.is_main_process:
        say(f"wrote {Path(chosen.out) / 'adapter.safetensors'}")
        say(f"next: {_next(plan)}")


def chosen_recipe(name: str, changes: list[str]) -> Recipe:
    """The recipe of this name or file, with changes as key=value."""
    return training.override(
        _recipe(name), named(changes, "change", value="value, such as steps=50", read=str, empty=True)
    )


def _check_fits(recipe: Recipe, *, anyway: bool) -> None:
    """Print the plan of the run on this machine's GPUs, and refuse one that cannot fit."""
    import torch  # here, since the list of options needs nothing of it

    state = execution.this_process()
    made = planning.plan(
        recipe,
        planning.gpu_here(state.device),
        num_gpus=state.num_processes,
        host_memory=execution.free_bytes(torch.device("cpu")) / planning.GIB * execution.num_machines(),
        num_images=data.num_images(recipe.data),
    )
    if state.is_main_process:
        say(planning.report(made))
    if not (made.fits or anyway):
        raise ValueError(f"{planning.refusal(made)}; --anyway starts it nevertheless")


def _recipe(name: str) -> Recipe:
    if name in RECIPES:
        return RECIPES[name]()
    if Path(name).suffix in (".yaml", ".yml"):
        return training.load_recipe(name)
    close = difflib.get_close_matches(name, RECIPES, n=1)
    hint = f" (did you mean {close[0]}?)" if close else ""
    raise ValueError(
        f"there is no recipe {name!r}{hint}: expected a YAML file or one of {', '.join(RECIPES)}"
    )


def _next(plan: TrainingPlan) -> str:
    """How to draw with what was trained: at its size, with its sampling steps, something that its data show."""
    recipe, adapter = plan.recipe, Path(plan.recipe.out) / "adapter.safetensors"
    captions = [caption for entry in plan.data.entries for caption in entry.record.captions.values()]
    words = [
        *("urae", "generate", min(captions, key=len)),
        *("--model", recipe.model, "--adapter", str(adapter), "--size", f"{recipe.size}x{recipe.size}"),
    ]
    if recipe.sample_steps != generation.Direct.steps:
        words += ["--steps", str(recipe.sample_steps)]
    if recipe.base_weights != "as_loaded":
        words += ["--base-weights", recipe.base_weights]
    return shlex.join(words)

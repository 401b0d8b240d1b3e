"""The adapters of a plan: where each is, and the training of those that are not there yet."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from urae import planning, training
from urae.planning import Gpu, Option, TrainingNeeds
from urae.recipes import RECIPES
from urae.reproduce.plan import Made, TablePlan
from urae.training import Recipe

__all__ = ["adapter_file", "adapters_of", "fitted", "identity_of", "recipe_of", "train_adapter"]


def adapters_of(plan: TablePlan) -> list[str]:
    """Adapters that the rows use, each after those that it starts from."""
    wanted: list[str] = []

    def want(name: str) -> None:
        made = plan.adapters[name]
        for value in made.changes.values() if isinstance(made, Made) else ():
            section, _, other = str(value).partition(".")
            if section == "adapters" and other in plan.adapters:
                want(other)
        if name not in wanted:
            wanted.append(name)

    for row in plan.rows:
        if row.adapter:
            want(row.adapter)
    return wanted


def adapter_file(plan: TablePlan, name: str, out: Path) -> Path:
    """Where the adapter is, or will be; its folder's name depends on all that it is trained from."""
    made = plan.adapters[name]
    return (
        Path(made) if isinstance(made, str) else Path(recipe_of(plan, name, out).out) / "adapter.safetensors"
    )


def recipe_of(plan: TablePlan, name: str, out: Path) -> Recipe:
    """The recipe of an adapter that is trained here."""
    made = plan.adapters[name]
    assert isinstance(made, Made)
    changes = {key: _resolved(plan, value, out) for key, value in {**plan.changes, **made.changes}.items()}
    make = RECIPES[plan.recipes[made.recipe]]
    recipe = make(**changes, model=plan.models[made.model])
    digest = identity_of({**training.to_dict(recipe), "out": ""})
    return training.override(recipe, {"out": str(out / "adapters" / f"{name}-{digest}")})


def train_adapter(
    plan: TablePlan,
    name: str,
    out: Path,
    open_model: Callable[[str, str], Any],
    *,
    gpu: Gpu | None,
    on_plan: Callable[[str], object],
) -> Path:
    """Train it, or go on. `open_model` takes a model and a number format. On a GPU the run is planned first, and made
    to fit by what leaves each step as it is; `on_plan` is told how. `ValueError` where nothing of that kind makes it
    fit."""
    recipe = recipe_of(plan, name, out)
    if gpu:
        needed = planning.plan(recipe, gpu)
        recipe = fitted(needed).recipe
        on_plan(f"{name}: {planning.report(needed)}\n{_told(needed, recipe)}")
    dtype = "float32" if recipe.base_dtype == "fp32" else "auto"
    training.train(open_model(recipe.model, dtype), recipe)
    return Path(recipe.out) / "adapter.safetensors"


def fitted(needed: TrainingNeeds) -> Option:
    """The run as it fits: as it is, or in parts, with less kept for the backward pass, or with the host's memory,
    the fastest such way. The batch and the base's weights stay; a base that is rounded would be another experiment."""
    if needed.fits:
        return needed.asked
    stored = needed.asked.recipe.base_weights
    ways = [option for option in needed.options if option.fits and option.recipe.base_weights == stored]
    if not ways:
        raise ValueError(
            f"{planning.refusal(needed)}, and no setting that keeps the result the same makes it fit: give "
            "other settings as changes.KEY=VALUE, or a larger GPU"
        )
    return ways[0]


def _told(needed: TrainingNeeds, recipe: Recipe) -> str:
    """How the run differs from what was asked for."""
    asked, taken = training.to_dict(needed.asked.recipe), training.to_dict(recipe)
    changed = " ".join(f"{key}={value}" for key, value in taken.items() if value != asked[key])
    if not changed:
        return "taken as it is"
    return (
        f"taken: {changed}; {recipe.images_at_a_time(1)} of the {recipe.batch_size} images of a step at a time, and "
        "their gradients summed, so that each step is that of the whole batch"
    )


def identity_of(settings: Any) -> str:
    """Eight digits that change with any of the settings."""
    text = json.dumps(settings, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _resolved(plan: TablePlan, value: Any, out: Path) -> Any:
    section, _, name = value.partition(".") if isinstance(value, str) else ("", "", "")
    if section == "data" and name in plan.data:
        return plan.data[name]
    if section == "adapters" and name in plan.adapters:
        return str(adapter_file(plan, name, out))
    return value

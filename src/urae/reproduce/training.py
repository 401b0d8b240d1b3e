"""The adapters of a plan: where each is, and the training of those that are not there yet."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from urae import training
from urae.recipes import RECIPES
from urae.reproduce.plan import Made, TablePlan
from urae.training import Recipe

__all__ = ["adapter_file", "identity_of", "recipe_of", "train_adapter"]


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


def train_adapter(plan: TablePlan, name: str, out: Path, open_model: Callable[[str, str], Any]) -> Path:
    """Train it, or go on. `open_model` takes a model and a number format."""
    recipe = recipe_of(plan, name, out)
    dtype = "float32" if recipe.base_dtype == "fp32" else "auto"
    training.train(open_model(recipe.model, dtype), recipe)
    return Path(recipe.out) / "adapter.safetensors"


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

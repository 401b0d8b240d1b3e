"""Training: the recipe, the objective, the loop, checkpoints that a run goes on from to the bit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from urae.exports import lazily

if TYPE_CHECKING:
    from urae.training.metrics import read_metrics
    from urae.training.plan import TrainingPlan, check_inputs, plan_training
    from urae.training.recipe import Recipe
    from urae.training.running import run_training, train
    from urae.training.settings import (
        from_dict,
        load_recipe,
        override,
        recipe_text,
        save_recipe,
        to_dict,
        valid_keys,
    )

__getattr__, __dir__, __all__ = lazily(__name__)

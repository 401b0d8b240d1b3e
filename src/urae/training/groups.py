"""Groups of processes that compute as one, because they share the tokens of each image."""

from __future__ import annotations

from accelerate import Accelerator

from urae.execution import num_groups
from urae.training.recipe import Recipe

__all__ = ["group_of"]


def group_of(accelerator: Accelerator, recipe: Recipe) -> tuple[int, int]:
    """This process's group and the number of groups; groups share a batch as processes would alone."""
    groups = num_groups(accelerator.num_processes, recipe.context_parallel)
    return accelerator.process_index // recipe.context_parallel, groups

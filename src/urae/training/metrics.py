"""What a run says about itself: metrics.jsonl, one line a step, and the trackers of accelerate.

The file is the record, the trackers are a convenience. A checkpoint remembers how long the file was; a run
that goes on from it cuts the file to that length first, so that no step is there twice.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from urae.errors import MissingExtra
from urae.io import read_json_lines
from urae.training.recipe import Recipe
from urae.training.settings import to_dict

__all__ = ["check_loggers", "read_metrics", "start_trackers"]


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl. Raises `BadFile`."""
    return [row for _, row in read_json_lines(path)]


def check_loggers(names: Sequence[str]) -> None:
    """Raise `MissingExtra` for a tracker whose package is not installed."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise MissingExtra(
                f"the logger {name} is not installed: pip install {name}, or leave it out of loggers"
            )


def start_trackers(accelerator: Accelerator, recipe: Recipe, *, step: int) -> None:
    """Start the recipe's trackers at this step. TensorBoard's files lie in the run's directory."""
    settings = {"config": to_dict(recipe), "name": Path(recipe.out).name}
    # Steps that will be repeated are hidden, as they are cut from metrics.jsonl.
    options = {"tensorboard": {"purge_step": step}, "wandb": settings, "trackio": settings}
    accelerator.init_trackers("urae", init_kwargs={name: options[name] for name in recipe.loggers})

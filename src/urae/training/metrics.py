"""What a run says about itself: metrics.jsonl, one line a step, and the trackers of accelerate.

The file is the record, the trackers are a convenience. A checkpoint remembers how long the file was; a run
that goes on from it cuts the file to that length first, so that no step is there twice.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator

from urae.errors import MissingExtra
from urae.io import read_json_lines, read_picture
from urae.pages import thumbnail
from urae.training.recipe import Recipe
from urae.training.settings import to_dict

__all__ = ["check_loggers", "read_metrics", "start_trackers", "track_pictures"]

TRACKED = 1536
"""Longest side of a picture in a tracker, px: whole ones are in the run's directory."""


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


def track_pictures(accelerator: Accelerator, folder: Path, *, step: int) -> None:
    """Hand the samples of a step, each beside the base's, to the trackers that show pictures, TensorBoard and wandb."""
    showing = [tracker for tracker in accelerator.trackers if tracker.name in ("tensorboard", "wandb")]
    if not (showing and accelerator.is_main_process):
        return
    for path in sorted(folder.glob(f"step-{step:06d}-*.png")):
        picture = np.asarray(thumbnail(read_picture(path), TRACKED))
        for tracker in showing:
            batch = picture[None] if tracker.name == "tensorboard" else [picture]
            options = {"dataformats": "NHWC"} if tracker.name == "tensorboard" else {}
            tracker.log_images({f"samples/{path.stem[-2:]}": batch}, step=step, **options)

"""What a run says about itself: metrics.jsonl, one line a step, and the trackers of accelerate.

The file is the record, the trackers are a convenience. A checkpoint remembers how long the file was; a run
that goes on from it cuts the file to that length first, so that no step is there twice.
"""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from urae.errors import BadFile, MissingExtra
from urae.training.recipe import Recipe
from urae.training.settings import to_dict

__all__ = ["Metrics", "check_loggers", "read_metrics"]


class Metrics:
    """An open metrics.jsonl."""

    def __init__(self, path: Path, *, length: int) -> None:
        """Go on in the file at this length in bytes; what is behind it belongs to steps that will be
        repeated."""
        path.touch()
        self.file = path.open("r+b")
        if self.file.seek(0, os.SEEK_END) < length:
            raise BadFile(
                f"{path} lacks steps that the checkpoint has done: put it back, or start anew elsewhere"
            )
        self.file.truncate(length)
        self.file.seek(length)

    def write(self, row: dict[str, Any]) -> None:
        """Add one line."""
        self.file.write(json.dumps(row).encode() + b"\n")
        self.file.flush()

    def length(self) -> int:
        """Bytes written, all of them on disk."""
        os.fsync(self.file.fileno())
        return self.file.tell()

    def close(self) -> None:
        self.file.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


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

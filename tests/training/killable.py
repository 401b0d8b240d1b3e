"""A training run in a process of its own, to be killed."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from diffusers import FluxPipeline

from processes import CONTEXT
from urae.cli.main import app
from urae.training import Recipe, load_recipe, save_recipe, train


def run(pipe_folder: Path, recipe_file: Path) -> None:
    """What the process does."""
    torch.set_num_threads(1)
    train(FluxPipeline.from_pretrained(pipe_folder), load_recipe(recipe_file))


def command(pipe_folder: Path, recipe_file: Path) -> None:
    """The same by the command, as its exit code tells."""
    torch.set_num_threads(1)
    os.setpgrp()  # as a shell and a cluster give each command, and signal all of it
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background ignores
    with redirected(recipe_file.with_suffix(".err")):
        app(["train", str(recipe_file), "--model", str(pipe_folder)])


@contextmanager
def redirected(file: Path) -> Iterator[None]:
    """Standard error into a file."""
    with file.open("w") as opened:
        os.dup2(opened.fileno(), 2)
        yield


class Run:
    """A recipe that can be started, killed and finished."""

    def __init__(self, pipe_folder: Path, recipe: Recipe) -> None:
        self.pipe_folder, self.out = pipe_folder, Path(recipe.out)
        self.recipe_file = self.out.with_suffix(".yaml")
        save_recipe(recipe, self.recipe_file)

    def finish(self) -> None:
        process = self.started()
        process.join()
        assert process.exitcode == 0

    def kill_when(self, moment: Callable[[Path], bool]) -> bool:
        """Start, and send SIGKILL as soon as `moment(out)`; whether it came before the run was done."""
        process = self.started()
        while process.is_alive() and not moment(self.out):
            time.sleep(0.0002)
        process.kill()
        process.join()
        return process.exitcode != 0

    def started(self, what: Callable[[Path, Path], None] = run) -> multiprocessing.process.BaseProcess:
        process = CONTEXT.Process(target=what, args=(self.pipe_folder, self.recipe_file))
        process.start()
        return process


def writing_a_checkpoint(out: Path) -> bool:
    return any((out / "checkpoints").glob(".urae-*"))


def after(seconds: float) -> Callable[[Path], bool]:
    """The moment that many seconds from now."""
    due = time.monotonic() + seconds
    return lambda out: time.monotonic() > due


def steps_done(num: int, rng: random.Random) -> Callable[[Path], bool]:
    """Some moment after this many steps are in the metrics."""
    wait = rng.uniform(0, 0.08)
    reached: list[float] = []

    def moment(out: Path) -> bool:
        metrics = out / "metrics.jsonl"
        if not reached and metrics.is_file() and metrics.read_bytes().count(b"\n") > num:
            reached.append(time.monotonic() + wait)
        return bool(reached) and time.monotonic() > reached[0]

    return moment

"""Training runs below a folder, as pages show them, and the two things that a page may do to one: stop, and go on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from urae.io import holder_of
from urae.training.report import RunFacts, facts_of

__all__ = ["Runs"]

DEPTH = 3
"""Of a run's directory below the folder, at most."""


class Runs:
    """The directories below `folder` that hold a recipe.yaml and metrics.jsonl."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def names(self) -> list[str]:
        """Paths of the runs below the folder, the last changed first."""
        patterns = ["/".join(["*"] * depth + ["recipe.yaml"]) for depth in range(1, DEPTH + 1)]
        found = [path.parent for pattern in patterns for path in self.folder.glob(pattern)]
        found = [path for path in found if (path / "metrics.jsonl").exists()]
        found.sort(key=lambda path: (path / "metrics.jsonl").stat().st_mtime, reverse=True)
        return [str(path.relative_to(self.folder)) for path in found]

    def facts(self, name: str) -> RunFacts:
        """What a run's directory holds. LookupError for an unknown one."""
        return facts_of(self._path(name))

    def is_running(self, name: str) -> bool:
        """Whether a process trains in it."""
        return holder_of(self._path(name) / "lock") is not None

    def sample(self, name: str, picture: str) -> Path:
        """A sample picture. LookupError for an unknown one."""
        for path in self.facts(name).samples:
            if path.name == picture:
                return path
        raise LookupError(picture)

    def stop(self, name: str) -> None:
        """Ask the run to end after its step, with a checkpoint. ValueError where nothing runs."""
        process = holder_of(self._path(name) / "lock")
        if process is None:
            raise ValueError(f"{name} is not running")
        os.kill(process, signal.SIGTERM)

    def go_on(self, name: str) -> None:
        """Start the run again from its last checkpoint, in a process that outlives this one; what it prints goes to
        train.log in its directory. ValueError where it runs already."""
        folder = self._path(name)
        if self.is_running(name):
            raise ValueError(f"{name} is running already")
        command = [
            sys.executable,
            "-c",
            "from urae.cli import app; app()",
            "train",
            str(folder / "recipe.yaml"),
        ]
        with (folder / "train.log").open("ab") as log:
            subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
            )

    def _path(self, name: str) -> Path:
        if name not in self.names():
            raise LookupError(name)
        return self.folder / name

"""Processes for tests that start from one which has imported the libraries, so that a start costs a fraction of the
five CPU seconds that torch and diffusers take. What is ours each of them imports itself."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
from pathlib import Path

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    ["torch", "accelerate", "peft", "diffusers.pipelines.flux.pipeline_flux", "openai"]
)
"""A worker of the suite has one such process, whoever asks first: this is the only list."""


def urae(*arguments: object, cwd: Path | str = ".") -> subprocess.CompletedProcess[str]:
    """Run the command line as `urae` does, in a process of its own with an output and an exit code of its own."""
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        words = ["urae", *map(str, arguments)]
        process = CONTEXT.Process(target=_command, args=(words, dict(os.environ), str(cwd), out, err))
        process.start()
        process.join()
        return subprocess.CompletedProcess(words, process.exitcode, out.read_text(), err.read_text())


def _command(words: list[str], environment: dict[str, str], cwd: str, out: Path, err: Path) -> None:
    for number, file in ((1, out), (2, err)):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), number)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    sys.argv = words
    from urae.cli import app

    app()

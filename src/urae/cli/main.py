"""The root command and what every verb shares: one clear sentence for a user's error, a report of ours."""

from __future__ import annotations

import contextlib
import importlib.metadata
import platform
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.text import Text

from urae.cli.defaults import check_tables, read_defaults
from urae.cli.verbs import Verbs
from urae.errors import Stopped
from urae.io import plain, sentence_of

__all__ = ["VERBS", "app"]

VERBS = {
    "quickstart": "Take the bundled miniature FLUX from 128 px to 256 and 512 px, and show the difference.",
    "plan": "Say whether a training run fits on a GPU, for how long and at what price.",
    "ui": "Open a page on this machine: draw, look closely, queue, history and training runs.",
    "train": "Train an adapter by a recipe.",
    "recipe": "List recipes, and show every setting of one.",
    "generate": "Draw prompts at any size, with or without an adapter.",
    "enlarge": "Make a picture of your own larger, and show it before and after.",
    "show": "Say how a picture was made, as far as its file says.",
    "compare": "Draw one prompt several ways: a sheet of pictures, and what each way costs.",
    "policy": "Choose a resolution policy by measuring the model itself.",
    "data": "Collect, import, caption, cache and inspect the images to train on.",
    "adapter": "Show, convert, merge and bake adapter files.",
    "evaluate": "Measure folders of pictures and compare them, prompt by prompt.",
    "dpg": "Score pictures by DPG-Bench: do they show what dense prompts ask for?",
    "judge": "Ask a vision-language model which pictures it prefers; the cost is shown first.",
    "study": "Let people vote on pictures, blind, and count the votes with intervals.",
    "reproduce": "Reproduce a table of the paper: make what is missing, and print it beside the paper's numbers.",
    "theory": "What share of synthetic data to train on, and why (Theorem 2.4).",
}
"""What `urae --help` lists: verb -> what it does."""

BESIDE = ("torch", "diffusers", "transformers", "peft", "accelerate")
"""Packages whose versions are shown beside ours."""

LOST = (
    "another process of the run has ended, or its machine or the network is lost; if it said why, that is above or in "
    "its own log. The same command goes on after what was kept"
)
FULL = "the machine's memory is full: take a smaller size, fewer steps or fewer at a time"
OF_THE_WORLD = {
    "OutOfMemoryError": "the GPU's memory is full: take a smaller size, or see `urae plan` for what saves memory",
    **dict.fromkeys(("DistBackendError", "DistNetworkError", "DistStoreError"), LOST),
}
"""Errors of libraries that are nobody's fault, by the name of their class -> a sentence."""

USER, BUG, INTERRUPTED, PIPE_CLOSED = 2, 1, 130, 141
"""Exit codes; the last two are those of a shell for a process that SIGINT and SIGPIPE end."""


class Root(Verbs):
    """Prints what a user or the world did wrong as one sentence, and a bug as a bug."""

    package = "urae.cli"
    verbs = VERBS

    def get_params(self, ctx: Any) -> list[Any]:
        params = super().get_params(ctx)
        for param in params:  # --version and completion are asked for, never set for every command
            param.allow_from_autoenv = param.show_envvar = False  # type: ignore[attr-defined]
        return params

    def main(self, *args: Any, **options: Any) -> Any:
        try:
            try:
                return super().main(*args, **options)
            finally:
                sys.stdout.flush()
        except BrokenPipeError:
            # Whoever read has gone; what is left in the buffer would complain at the very end.
            sys.stdout = None
            sys.exit(PIPE_CLOSED)

    def invoke(self, ctx: Any) -> Any:
        try:
            ctx.obj = read_defaults()
            check_tables(ctx.obj, list(self.verbs))
            with _ending_as_interrupted():
                return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            _end("stopped", str(stop), stop.code if isinstance(stop, Stopped) else INTERRUPTED)
        except Exception as error:
            if isinstance(error, (typer.Abort, BrokenPipeError)) or hasattr(error, "exit_code"):
                raise  # typer's own, for wrong options, --help and the like
            _report(error)


@contextlib.contextmanager
def _ending_as_interrupted() -> Iterator[None]:
    """SIGTERM, by which a cluster, a container or `kill` ends a process, does what Ctrl-C does: what is unfinished is
    removed, and a line says that the command has stopped. A second one ends the process at once."""

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        raise Stopped("", number)

    alone = threading.current_thread() is threading.main_thread()  # Python gives signals to no other
    before = signal.getsignal(signal.SIGTERM)
    if not alone or before is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _report(error: Exception) -> NoReturn:
    lost = LOST if type(error) is RuntimeError and "gloo" in str(error) else None  # which has no class for it
    full = FULL if isinstance(error, MemoryError) or "DefaultCPUAllocator" in str(error) else None
    sentence = lost or full or OF_THE_WORLD.get(type(error).__name__) or sentence_of(error)
    if sentence is not None:
        _end("error:", sentence, USER)
    name = f"{type(error).__name__}: {error}".rstrip(": ")
    told = "".join(traceback.format_exception(error))
    _end(
        "bug:",
        f"{name}\nThis is a fault of urae, not yours. Please report it with the lines below, the command and the "
        f"output of urae --version at the project's issue tracker.\n\n{told}",
        BUG,
    )


def _end(word: str, text: str, code: int) -> NoReturn:
    if watch := sys.modules.get("urae.execution.watch"):
        watch.FAILED = True  # type: ignore[attr-defined]
    said = Text.assemble((word, "bold red"), f" {plain(text)}".rstrip())
    Console(stderr=True, highlight=False, soft_wrap=True).print(said)
    sys.exit(code)


app = typer.Typer(
    cls=Root,
    no_args_is_help=True,
    context_settings={"auto_envvar_prefix": "URAE"},
    pretty_exceptions_enable=False,
    help="Make image diffusion transformers work far above the size they were trained for.",
)


def show_version(asked: bool) -> None:
    """What a report of a fault should begin with: our version and those of what we stand on, none of it imported."""
    if asked:
        parts = (f"{name} {importlib.metadata.version(name)}" for name in BESIDE)
        print(
            f"urae {importlib.metadata.version('urae')} ({', '.join(parts)}, Python {platform.python_version()})"
        )
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Show versions and exit.")
    ] = False,
) -> None:
    """Make image diffusion transformers work far above the size they were trained for."""

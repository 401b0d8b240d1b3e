"""The root command and what every verb shares: one clear sentence for a user's error, a traceback for ours."""

from __future__ import annotations

import importlib.metadata
import platform
import sys
from typing import Annotated, Any

import typer
from rich.console import Console

from urae.cli.verbs import Verbs
from urae.errors import UraeError

__all__ = ["VERBS", "app"]

VERBS = {
    "quickstart": "Take the bundled miniature FLUX from 128 px to 256 and 512 px, and show the difference.",
    "plan": "Say whether a training run fits on a GPU, for how long and at what price.",
    "train": "Train an adapter by a recipe.",
    "generate": "Draw prompts at any size, with or without an adapter.",
    "compare": "Draw one prompt several ways: a sheet of pictures, and what each way costs.",
    "data": "Collect, import, caption, cache and inspect the images to train on.",
    "adapter": "Show, convert and merge adapter files.",
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


class Root(Verbs):
    """Prints what a user or the world did wrong as one sentence, and exits with 2."""

    package = "urae.cli"
    verbs = VERBS

    def main(self, *args: Any, **options: Any) -> Any:
        try:
            return super().main(*args, **options)
        except (ValueError, UraeError, FileNotFoundError) as error:
            Console(stderr=True).print(f"[bold red]error:[/] {error}", highlight=False, soft_wrap=True)
            sys.exit(2)


app = typer.Typer(
    cls=Root,
    no_args_is_help=True,
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

"""The root command and what every verb shares: one clear sentence for a user's error, a traceback for ours.

A verb's module is imported when it is called: diffusers and transformers take seconds to import, and
`urae --help` needs neither.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import platform
import sys
from typing import Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperCommand, TyperGroup

from urae.errors import UraeError

__all__ = ["app", "verb"]

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


def verb(name: str) -> Any:
    """The command of this verb, its module imported."""
    module = importlib.import_module(f"urae.cli.{name}")
    if hasattr(module, "app"):
        return typer.main.get_group(module.app)
    single = typer.Typer(add_completion=False)
    single.command()(getattr(module, name))
    return typer.main.get_command(single)


class Listed(TyperCommand):
    """A verb that is listed and not yet imported."""

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        assert self.name is not None
        return verb(self.name).make_context(info_name, args, parent=parent, **extra)


class Verbs(TyperGroup):
    """Prints what a user or the world did wrong as one sentence, and exits with 2."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        return Listed(cmd_name, help=VERBS[cmd_name]) if cmd_name in VERBS else None

    def main(self, *args: Any, **options: Any) -> Any:
        try:
            return super().main(*args, **options)
        except (ValueError, UraeError, FileNotFoundError) as error:
            Console(stderr=True).print(f"[bold red]error:[/] {error}", highlight=False, soft_wrap=True)
            sys.exit(2)


app = typer.Typer(
    cls=Verbs,
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

"""The root command and what every verb shares: one clear sentence for a user's error, a traceback for ours."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import typer
from rich.console import Console
from typer.core import TyperGroup

from urae.cli import adapter, theory
from urae.cli.generate import generate
from urae.cli.quickstart import quickstart
from urae.cli.train import train
from urae.errors import UraeError

__all__ = ["app"]


class Verbs(TyperGroup):
    """Prints what a user or the world did wrong as one sentence, and exits with 2."""

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
app.command()(quickstart)
app.command()(train)
app.command()(generate)
app.add_typer(adapter.app, name="adapter")
app.add_typer(theory.app, name="theory")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line on these arguments (default: those of the process)."""
    app(args=list(arguments) if arguments is not None else None)

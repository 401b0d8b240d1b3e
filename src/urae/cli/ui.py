"""`urae ui`: the page for whoever makes pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from urae.cli.options import Fields
from urae.cli.printed import say
from urae.generation.asking import ModelRequest

__all__ = ["ui"]


def ui(
    model: Annotated[dict[str, Any], Fields(ModelRequest)],
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("images"),
    runs: Annotated[Path, typer.Option(help="Folder that holds training runs.")] = Path("out"),
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on this machine.")] = 8100,
) -> None:
    """Open a page on this machine: draw, look closely, queue and history, training runs.

    Example: urae ui --model mini --out images
    """
    from urae.ui import serve

    serve(ModelRequest(**model), out, runs, port=port, say=say)

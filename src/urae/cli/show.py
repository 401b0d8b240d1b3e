"""`urae show`: how a picture was made, as far as its file says."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from urae import provenance
from urae.cli.printed import console
from urae.io import plain

__all__ = ["show"]

LONGEST = 2_000
"""Characters of one entry."""


def show(
    picture: Annotated[Path, typer.Argument(help="A PNG, JPEG or WebP of urae, AUTOMATIC1111 or ComfyUI.")],
) -> None:
    """Say how a picture was made: prompt, seed, size, method, policy, adapters, model and more.

    Example: urae show images/1-a-flat-tiger-on-a-wood-background-256x256-seed0-5f0c9a31.png
    """
    table = Table(title=plain(picture.name), show_header=False, title_justify="left")
    for name, value in provenance.facts_of(provenance.read_maker(picture)).items():
        said = plain(value)
        table.add_row(plain(name), said if len(said) <= LONGEST else f"{said[:LONGEST]} [...]")
    console.print(table)

"""`urae show`: how a picture was made, as far as its file says."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from urae import provenance
from urae.cli.printed import Verbose, console
from urae.io import plain

__all__ = ["show"]

LONGEST = 2_000
"""Characters of one entry."""


def show(
    picture: Annotated[Path, typer.Argument(help="A PNG, JPEG or WebP of urae, AUTOMATIC1111 or ComfyUI.")],
    verbose: Verbose = False,
) -> dict[str, Any]:
    """Say how a picture was made: prompt, seed, size, method, policy, adapters, model and more.

    Example: urae show images/1-a-flat-tiger-on-a-wood-background-256x256-seed0-5f0c9a31.png
    """
    made = provenance.read_maker(picture)
    facts = provenance.facts_of(made)
    ours = None if isinstance(made, provenance.Foreign) else made
    if verbose and ours and ours.policy:
        facts["policy as JSON"] = ours.policy.to_json()
    table = Table(title=plain(picture.name), show_header=False, title_justify="left")
    for name, value in facts.items():
        said = plain(value)
        table.add_row(plain(name), said if len(said) <= LONGEST else f"{said[:LONGEST]} [...]")
    console.print(table)
    told = ours.to_dict() if ours else vars(made)
    return {"made_by": facts["made by"], **{name: value for name, value in told.items() if name != "tool"}}

"""`urae data inspect`: a data set on one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from urae.cli.printed import say
from urae.intake import data_summary, inspect_data
from urae.io import check_can_write

__all__ = ["inspect"]


def inspect(
    source: Annotated[str, typer.Argument(help="A manifest, or a folder of images.")],
    out: Annotated[Path, typer.Option(help="The page.")] = Path("inspect.html"),
    pictures: Annotated[int, typer.Option(min=0, help="How many images to show.")] = 24,
    seed: Annotated[int, typer.Option(help="Seed of the choice of images.")] = 0,
) -> dict[str, Any]:
    """Show a data set on one HTML page: sizes, shapes, captions, licences, rejects, cost and pictures.

    Example: urae data inspect data/real-4k --out real-4k.html
    """
    check_can_write(out)
    page = inspect_data(source, out, num_pictures=pictures, seed=seed)
    say(f"wrote {page}: open it in a browser")
    return {"page": str(page), **data_summary(source)}

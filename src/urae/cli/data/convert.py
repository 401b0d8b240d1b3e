"""`urae data convert`: a data set in another format."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from urae.cli.printed import say
from urae.data import convert as convert_data
from urae.data.formats.converting import FORMS
from urae.io import check_can_write

__all__ = ["convert"]


def convert(
    source: Annotated[
        str,
        typer.Argument(
            help="A folder, shard (.tar), folder of shards, manifest (.jsonl) or `datasets` folder."
        ),
    ],
    out: Annotated[Path, typer.Option(help="The new folder.")],
    to: Annotated[str, typer.Option(help=", ".join(FORMS))] = "manifest",
    shard_megabytes: Annotated[int, typer.Option(min=1, help="Of images in a shard.")] = 1000,
) -> None:
    """Write a data set in another format: the same images with all that is known of them.

    Example: urae data convert data/real-4k --to shards --out shards/real-4k
    """
    check_can_write(out, folder=True)
    written = convert_data(source, out, form=to, shard_bytes=shard_megabytes * 10**6)
    say(f"wrote {written}")

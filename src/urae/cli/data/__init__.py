"""`urae data`: from nothing to a cached training set, one command a step."""

from __future__ import annotations

import typer

from urae.cli.data.cache import cache
from urae.cli.data.caption import caption
from urae.cli.data.collect import collect
from urae.cli.data.convert import convert
from urae.cli.data.import_ import import_
from urae.cli.data.inspect import inspect

__all__ = ["app"]

app = typer.Typer(
    no_args_is_help=True, help="Collect, import, caption, cache and inspect the images to train on."
)
app.command()(collect)
app.command("import")(import_)
app.command()(caption)
app.command()(cache)
app.command()(inspect)
app.command()(convert)

"""What commands print: texts as they are, which may come from strangers, never read as markup."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

import typer
from rich.console import Console, ConsoleOptions, RenderResult
from rich.markdown import Markdown, TableElement

from urae.io import plain

__all__ = ["Verbose", "console", "say", "say_report", "tell_unused"]

Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", help="Show every setting of the resolution policy, as JSON.")
]

console = Console(highlight=False, soft_wrap=True, markup=False, emoji=False)


def say(text: object) -> None:
    """A line, or several, without terminal sequences."""
    console.print(plain(text))


class Whole(TableElement):
    """A table that breaks long names into lines, where Rich's would cut them."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Rich's."""
        for table in super().__rich_console__(console, options):
            for column in table.columns:  # type: ignore[union-attr]
                column.overflow = "fold"
            yield table


class Report(Markdown):
    """Markdown with whole tables."""

    elements = {**Markdown.elements, "table_open": Whole}


def say_report(markdown: str) -> None:
    """A report: laid out in a terminal, Markdown anywhere else."""
    if console.is_terminal:
        console.print(Report(plain(markdown), hyperlinks=False), soft_wrap=False)
    else:
        say(markdown)


def tell_unused(done: str, unused: Mapping[str, Sequence[str]]) -> None:
    """Say which pictures of each candidate were not `done`, since no prompt names them."""
    for name, files in unused.items():
        if files:
            say(f"not {done}, as no prompt names them: {len(files)} pictures of {name}, such as {files[0]}")

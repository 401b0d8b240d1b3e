"""What commands print: texts as they are, which may come from strangers, never read as markup."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console

from urae.io import plain

__all__ = ["console", "say", "tell_unused"]

console = Console(highlight=False, soft_wrap=True, markup=False, emoji=False)


def say(text: object) -> None:
    """A line, or several, without terminal sequences."""
    console.print(plain(text))


def tell_unused(done: str, unused: Mapping[str, Sequence[str]]) -> None:
    """Say which pictures of each candidate were not `done`, since no prompt names them."""
    for name, files in unused.items():
        if files:
            say(f"not {done}, as no prompt names them: {len(files)} pictures of {name}, such as {files[0]}")

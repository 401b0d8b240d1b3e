"""What commands print: texts as they are, which may come from strangers, never read as markup."""

from __future__ import annotations

from rich.console import Console

from urae.io import plain

__all__ = ["console", "say"]

console = Console(highlight=False, soft_wrap=True, markup=False, emoji=False)


def say(text: object) -> None:
    """A line, or several, without terminal sequences."""
    console.print(plain(text))

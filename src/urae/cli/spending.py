"""What commands that pay for answers have in common: how many at a time, prices, a question before money is spent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Protocol

import typer

from urae.cli.printed import say

__all__ = ["Concurrency", "DryRun", "Prices", "RequestOptions", "Yes", "agreed"]

Concurrency = Annotated[int, typer.Option(min=1, help="Requests at a time.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Show what would be asked and its cost, and end there.")
]
RequestOptions = Annotated[
    list[str], typer.Option(help="key=value for each request, as JSON; null takes one out.")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Spend without asking.")]


class Priced(Protocol):
    """What has a price by its tokens."""

    def price(self, *, per_million_in: float, per_million_out: float) -> float:
        """In the currency of the two prices."""


@dataclass(frozen=True, kw_only=True)
class Prices:
    """What a server takes."""

    price_in: float = 0.0
    """Price of a million input tokens; 0 shows no price."""
    price_out: float = 0.0
    """Price of a million output tokens."""

    def tell(self, asked: Priced) -> None:
        """Say what it is expected to cost, where that is known."""
        if self.price_in or self.price_out:
            price = asked.price(per_million_in=self.price_in, per_million_out=self.price_out)
            say(f"price, estimated: {price:.2f}")


def agreed(question: str, *, costs: float, dry_run: bool, yes: bool) -> bool:
    """Whether to go on: not for a look alone, and where it costs something only if somebody says yes."""
    if dry_run:
        return False
    if costs and not yes:
        typer.confirm(question, abort=True, err=True)
    return True

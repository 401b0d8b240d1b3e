"""What commands that pay for answers have in common: how many at a time, prices, a question before money is spent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import Annotated, Any, Protocol

import typer

from urae.cli.printed import say
from urae.io import duration

__all__ = ["Concurrency", "DryRun", "Prices", "RequestOptions", "Yes", "agreed", "tell_time"]

Concurrency = Annotated[int, typer.Option(min=1, max=256, help="Requests at a time.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Show what would be asked, its cost and the time, and end there.")
]
RequestOptions = Annotated[
    list[str], typer.Option(help="key=value for each request, as JSON; null takes one out.")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Spend without asking.")]


ASSUMED = 10.0
"""Seconds that a server is taken to need for an answer, while none has come."""
FEW, PAUSE = 10, 300.0
"""Answers that tell no pace yet; seconds without one that are a pause between two runs."""


class Priced(Protocol):
    """What has a price by its tokens."""

    def price(self, *, per_million_in: float, per_million_out: float) -> float:
        """In the currency of the two prices."""


@dataclass(frozen=True, kw_only=True)
class Prices:
    """What a server takes."""

    price_in: float = field(default=0.0, metadata={"min": 0})
    """Price of a million input tokens; 0 shows no price."""
    price_out: float = field(default=0.0, metadata={"min": 0})
    """Price of a million output tokens."""

    def tell(self, asked: Priced) -> None:
        """Say what it is expected to cost, where that is known."""
        if self.price_in or self.price_out:
            price = asked.price(per_million_in=self.price_in, per_million_out=self.price_out)
            say(f"price, estimated: {price:.2f}")


def tell_time(num: int, came: Iterable[Mapping[str, Any]], *, at_a_time: int = 0) -> float | None:
    """Say, and return in hours, how long `num` more answers take: at the pace of those in a journal that `came`, pauses
    left out. Before there are some, an assumption for a server that is asked for so many `at_a_time`."""
    times = sorted(filter(None, map(_moment, came)))
    gaps = [late - early for early, late in pairwise(times) if late - early < PAUSE]
    if not num:
        return 0.0
    if len(gaps) >= FEW:
        each, basis = sum(gaps) / len(gaps), f"as the last {len(gaps)} came"
    elif at_a_time:
        each, basis = ASSUMED / at_a_time, f"if each takes {ASSUMED:g} s, {at_a_time} at a time"
    else:
        say("time: known once some have come")
        return None
    say(f"time, estimated: {duration(num * each / 3600)}, {basis}")
    return num * each / 3600


def _moment(line: Mapping[str, Any]) -> float | None:
    try:
        return datetime.fromisoformat(line["time"]).timestamp()
    except (KeyError, TypeError, ValueError):  # of another version
        return None


def agreed(question: str, *, costs: float, dry_run: bool, yes: bool) -> bool:
    """Whether to go on: not for a look alone, and where it costs something only if somebody says yes."""
    if dry_run:
        return False
    if costs and not yes:
        typer.confirm(question, abort=True, err=True)
    return True

"""What a collection has ordered, paid and got, as its journal tells it.

Every order leaves two lines: that it is about to be sent, and what became of it. So a run that is killed in between
knows, when it is started again, that an image may have been paid whose ticket it never saw. No client can make that
moment shorter than the way of the answer, but nothing that costs money goes uncounted.
"""

from __future__ import annotations

import math
import threading
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from urae.collecting.teachers.teacher import ImageOrder
from urae.errors import BadFile
from urae.io import Journal, Line, check_file_name, field_of, read_journal, typed

__all__ = ["Account", "Orders", "accounts_of", "is_cost", "orders_sent", "read_orders"]

FIELDS: Mapping[str, Mapping[str, type]] = {
    "opened": {},
    "sending": {"prompt": str, "shape": str, "seed": int, "price": float},
    "declined": {"reason": str},
    "lost": {"reason": str},
    "ordered": {"ticket": dict},
    "refused": {"reason": str},
    "gone": {"reason": str},
    "arrived": {"image": dict},
}
"""What a line of the journal holds, by its event, beside "key"; and "cost", which is judged where it is counted."""


@dataclass
class Account:
    """One image of a collection."""

    state: Literal["open", "outstanding", "refused", "arrived"] = "open"
    paid: float = 0.0
    """For all of its orders that are known to be taken, or may have been."""
    underway: bool = False
    """An order was sent and is not answered."""
    at_stake: float = 0.0
    """Price of that order."""
    num_lost: int = 0
    """Orders that may have been taken and paid, and whose answer never came."""
    num_gone: int = 0
    """Orders that were taken and came to no image."""
    reason: str = ""
    """Of the refusal, or of the last order that came to nothing."""
    ticket: dict[str, Any] = field(default_factory=dict)
    cost: float = 0.0
    """Of the last order that was taken."""
    image: dict[str, Any] = field(default_factory=dict)
    """That arrived: file, id, size and time."""

    @property
    def spent(self) -> float:
        return self.paid + self.at_stake

    def follow(self, line: Line) -> None:
        """Change as a line of the journal says."""
        before, at_stake = self.state, self.at_stake
        self.underway, self.at_stake = line["event"] == "sending", line.get("price", 0.0)
        self.reason = line.get("reason", "")
        # What a teacher answered in an earlier version may stand there: no cost takes back what was paid.
        cost = line["cost"] if is_cost(line.get("cost")) else at_stake
        match line["event"]:
            case "lost":
                self.paid, self.num_lost = self.paid + at_stake, self.num_lost + 1
            case "ordered":
                self.state, self.ticket, self.cost = "outstanding", line["ticket"], cost
                self.paid += cost
            case "gone":
                self.state, self.num_gone = "open", self.num_gone + 1
            case "refused":
                self.state = "refused"
                # What is moderated is not charged.
                self.paid -= self.cost if before == "outstanding" else 0.0
            case "arrived":
                self.state, self.image = "arrived", line["image"]
                self.paid += cost if before == "open" else 0.0


class Orders:
    """The accounts of all images by key, kept up to date with the journal."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        _check(journal.lines, journal.path)
        self.accounts = accounts_of(journal.lines)
        self.writing = threading.Lock()

    def account(self, wanted: ImageOrder) -> Account:
        return self.accounts[wanted.key]

    @property
    def spent(self) -> float:
        """For all that is known to be taken, or may have been; moderated images are not charged."""
        with self.writing:
            return sum(account.spent for account in self.accounts.values())

    def note(self, wanted: ImageOrder, event: str, **facts: Any) -> None:
        """Write what is about to happen to an order, or has happened: one of `FIELDS` with what belongs to it."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = {"event": event, "key": wanted.key, **facts, "time": now}
        with self.writing:
            self.journal.append(line)
            self.accounts[wanted.key].follow(line)


def read_orders(path: Path) -> list[Line]:
    """The lines of a collection's journal. Raises `BadFile`."""
    lines = read_journal(path)
    _check(lines, path)
    return lines


def accounts_of(lines: Sequence[Line]) -> dict[str, Account]:
    """The accounts that a journal's lines add up to."""
    accounts: dict[str, Account] = defaultdict(Account)
    for line in lines:
        if "key" in line:
            accounts[line["key"]].follow(line)
    return accounts


def orders_sent(lines: Sequence[Line]) -> dict[str, ImageOrder]:
    """The images that were asked for, by key."""
    fields = ("key", "prompt", "shape", "seed")
    sent = (line for line in lines if line["event"] == "sending")
    return {
        line["key"]: ImageOrder(
            name=str(line.get("name", line["key"])), **{name: line[name] for name in fields}
        )
        for line in sent
    }


def is_cost(value: Any) -> bool:
    """Whether a value can be what something costs."""
    return type(value) in (int, float) and math.isfinite(value) and value >= 0


def _check(lines: Sequence[Line], path: Path) -> None:
    for number, line in enumerate(lines, start=1):
        place = f"{path}, line {number}"
        event = field_of(line, "event", str, name=place)
        if event not in FIELDS:
            raise BadFile(f"{place} has the event {event!r}: expected one of {', '.join(FIELDS)}")
        for name, kind in FIELDS[event].items():
            field_of(line, name, kind, name=place)
        if event != "opened":
            field_of(line, "key", str, name=place)
        if event == "sending":
            _check_file(line, place)
        if event == "arrived":
            _check_image(line["image"], f"the image of {place}")


def _check_file(line: Line, place: str) -> None:
    try:
        check_file_name(typed(line.get("name", line["key"]), str, name=f"the name of {place}"))
    except ValueError as error:
        raise BadFile(f"{place}: {error}") from error


def _check_image(image: dict[str, Any], name: str) -> None:
    for key in ("id", "file", "time"):
        field_of(image, key, str, name=name)
    for side in field_of(image, "size", list, name=name):
        typed(side, int, name=f"the size of {name}")

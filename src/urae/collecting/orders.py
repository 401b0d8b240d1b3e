"""What a collection has ordered, paid and got, as its journal tells it.

Every order leaves two lines: that it is about to be sent, and what became of it. So a run that is killed in between
knows, when it is started again, that an image may have been paid whose ticket it never saw. No client can make that
moment shorter than the way of the answer, but nothing that costs money goes uncounted.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from urae.collecting.teachers.teacher import Order, Request
from urae.data.journal import Journal, Line

__all__ = ["Account", "Orders", "accounts_of"]


@dataclass
class Account:
    """One request of a collection."""

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
    """Of the image that arrived: file, id, size, num_bytes, time, and request."""

    @property
    def spent(self) -> float:
        return self.paid + self.at_stake

    def follow(self, line: Line) -> None:
        """Change as a line of the journal says."""
        before, at_stake = self.state, self.at_stake
        self.underway, self.at_stake = line["event"] == "sending", line.get("price", 0.0)
        self.reason = line.get("reason", "")
        match line["event"]:
            case "lost":
                self.paid, self.num_lost = self.paid + at_stake, self.num_lost + 1
            case "ordered":
                self.state, self.ticket, self.cost = "outstanding", line["ticket"], line["cost"]
                self.paid += line["cost"]
            case "gone":
                self.state, self.num_gone = "open", self.num_gone + 1
            case "refused":
                self.state = "refused"
                self.paid -= (
                    self.cost if before == "outstanding" else 0.0
                )  # What is moderated is not charged.
            case "arrived":
                self.state, self.image = "arrived", line["image"]
                self.paid += line["cost"] if before == "open" else 0.0


class Orders:
    """The accounts of all requests by key, kept up to date with the journal."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.accounts = accounts_of(journal.lines)
        self.writing = threading.Lock()

    def account(self, request: Request) -> Account:
        return self.accounts[request.key]

    @property
    def spent(self) -> float:
        """For all that is known to be taken, or may have been; moderated images are not charged."""
        with self.writing:
            return sum(account.spent for account in self.accounts.values())

    def sending(self, request: Request, price: float) -> None:
        self._add(
            request, "sending", prompt=request.prompt, shape=request.shape, seed=request.seed, price=price
        )

    def declined(self, request: Request, reason: str) -> None:
        self._add(request, "declined", reason=reason)

    def lost(self, request: Request, reason: str) -> None:
        self._add(request, "lost", reason=reason)

    def ordered(self, request: Request, order: Order) -> None:
        self._add(request, "ordered", ticket=order.ticket, cost=order.cost)

    def refused(self, request: Request, reason: str) -> None:
        self._add(request, "refused", prompt=request.prompt, reason=reason)

    def gone(self, request: Request, reason: str) -> None:
        self._add(request, "gone", reason=reason)

    def arrived(self, request: Request, image: dict[str, Any], *, cost: float) -> None:
        """`cost` counts where the image came with the answer to its order."""
        self._add(request, "arrived", image=image, cost=cost)

    def _add(self, request: Request, event: str, **facts: Any) -> None:
        line = {
            "event": event,
            "key": request.key,
            **facts,
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        }
        with self.writing:
            self.journal.append(line)
            self.accounts[request.key].follow(line)


def accounts_of(lines: list[Line]) -> dict[str, Account]:
    """The accounts that a journal's lines add up to."""
    accounts: dict[str, Account] = defaultdict(Account)
    for line in lines:
        if "key" in line:
            accounts[line["key"]].follow(line)
    return accounts

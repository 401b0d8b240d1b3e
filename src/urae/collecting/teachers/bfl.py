"""Black Forest Labs' HTTP API, which all of its models share; `flux.py` has the models.

An order is answered with a task's id and the address to ask after it; the finished image lies at a signed address
that is valid for ten minutes (an hour for FLUX 3), after which the task is asked again. The account allows 24 tasks at
a time. Moderated requests and images are not charged, says the provider (docs.bfl.ai, "Errors", "Pricing"; read in
November 2026).

The key comes from the environment and is sent to the API's own hosts alone; answers that repeat it are blackened.
"""

from __future__ import annotations

import math
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar
from urllib.parse import urlsplit

from urae.collecting.teachers.asking import ask, download
from urae.collecting.teachers.teacher import (
    Gone,
    ImageOrder,
    Later,
    Moderated,
    TakenOrder,
    Unserved,
    check_mix,
)
from urae.io import Answer, seconds_to_wait, without_query

__all__ = ["BlackForestLabs"]

MOST_TASKS = 24
PROVIDER = (".bfl.ai", ".bfl.ml")
CREDIT = 0.01
"""USD."""


@dataclass(frozen=True, kw_only=True)
class BlackForestLabs(ABC):
    """A model behind the API; `BFL_API_KEY` holds the key."""

    shapes: Mapping[str, float]
    safety_tolerance: int = 2
    """Of the moderation, from 0 (strict) to 4, 5 or 6, by model."""
    concurrency: int = 8
    rate: float = 120.0
    """Most orders a minute."""
    base_url: str = "https://api.bfl.ai"
    """Or a regional one, such as https://api.eu.bfl.ai."""
    timeout: float = 60.0
    """Seconds for one request, or one download."""
    poll_every: float = 1.0
    """Seconds."""
    grace: float = 30.0
    """Seconds in which a new task may not be known yet on every server of the API."""

    gives_tickets: ClassVar[bool] = True
    key_variable: ClassVar[str] = "BFL_API_KEY"
    most_tolerant: ClassVar[int]
    terms: ClassVar[str] = (
        "Black Forest Labs' Developer Terms and FLUX API Service Terms (bfl.ai/legal): read what they say about "
        "training other models on images"
    )

    def __post_init__(self) -> None:
        check_mix(self.shapes)
        if not 0 <= self.safety_tolerance <= self.most_tolerant:
            raise ValueError(
                f"safety_tolerance is {self.safety_tolerance}: expected 0 (strict) to {self.most_tolerant}"
            )
        if not 1 <= self.concurrency <= MOST_TASKS:
            raise ValueError(
                f"concurrency is {self.concurrency}: the API allows 1 to {MOST_TASKS} tasks at a time"
            )

    @property
    @abstractmethod
    def name(self) -> str:
        """Of the model, as the API's address has it."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """What is sent with every order."""

    @abstractmethod
    def body(self, wanted: ImageOrder) -> dict[str, Any]:
        """What is sent with this order beside the settings and its prompt."""

    @abstractmethod
    def price_of(self, shape: str) -> float:
        """USD, where the answer to an order does not say."""

    def ready(self) -> None:
        self._key()

    def order(self, wanted: ImageOrder) -> TakenOrder:
        body = {"prompt": wanted.prompt, **self.body(wanted), **self.settings()}
        answer = self._ask(f"{self.base_url}/v1/{self.name}", body)
        if answer.status != 200:
            raise self._failure(answer)
        return self._taken(answer, wanted)

    def fetch(self, ticket: dict[str, Any]) -> bytes | None:
        answer = self._ask(str(ticket["polling_url"]))
        said = answer.json()
        match said.get("status", "Task not found" if answer.status == 404 else None):
            case "Ready":
                return download(self._sample(said), timeout=self.timeout, base_url=self.base_url)
            case "Request Moderated" | "Content Moderated" as status:
                raise Moderated(self._blackened(f"{status}{_details(said)}"))
            case "Error" | "Failed":
                raise Gone(self._blackened(f"the task failed{_details(said)}"))
            case "Task not found":
                self._check_grace(ticket)
                return None
            case None:
                raise self._failure(answer)
            case _:
                return None  # Pending, and what the API may call the stages of it.

    def _taken(self, answer: Answer, wanted: ImageOrder) -> TakenOrder:
        said = answer.json()
        if not isinstance(said.get("id"), str):
            raise Unserved(
                self._blackened(f"{self._place} answered with no task: {answer.text!r}"), ordered=True
            )
        polling_url = said.get("polling_url") or f"{self.base_url}/v1/get_result?id={said['id']}"
        return TakenOrder(
            cost=self._cost(said.get("cost"), wanted.shape),
            ticket={"id": said["id"], "polling_url": polling_url, "time": time.time()},
        )

    def _cost(self, credits: Any, shape: str) -> float:
        if credits is None:
            return self.price_of(shape)
        return credits * CREDIT if type(credits) in (int, float) else math.nan

    def _sample(self, said: Mapping[str, Any]) -> str:
        result = said.get("result")
        sample = result.get("sample") if isinstance(result, dict) else None
        if not isinstance(sample, str):
            raise Later(f"{self._place} has an image ready and names no address")
        return sample

    def _check_grace(self, ticket: dict[str, Any]) -> None:
        if time.time() - float(ticket["time"]) > self.grace:
            raise Gone(f"{self._place} no longer knows the task {ticket['id']}")

    def _ask(self, url: str, body: dict[str, Any] | None = None) -> Answer:
        if not _same_site(url, self.base_url):
            raise Unserved(
                f"{self._place} names {without_query(url)} to ask for a task: the key is not sent to another site"
            )
        return ask(url, headers={"x-key": self._key()}, body=body, timeout=self.timeout)

    def _failure(self, answer: Answer) -> Later | Unserved:
        said = self._blackened(f"{self._place} answered with status {answer.status}: {answer.text}")
        match answer.status:
            case 429 | 408 | 500 | 503 | 200:
                return Later(said, seconds=seconds_to_wait(answer.headers))
            case status if status > 500:
                # From a gateway, which does not know what became of the order behind it.
                return Later(said, seconds=seconds_to_wait(answer.headers), ordered=True)
            case 402:
                return Unserved(f"{said}: the account has no credits left, add some and run again")
            case 401 | 403:
                return Unserved(f"{said}: check {self.key_variable}")
            case _:
                return Unserved(said)

    @property
    def _place(self) -> str:
        return f"{self.name} at {self.base_url}"

    def _key(self) -> str:
        key = os.environ.get(self.key_variable, "").strip()
        if not key:
            raise ValueError(f"{self.key_variable} is not set: export it with the API key of {self.base_url}")
        if not (key.isascii() and key.isprintable()):
            # The HTTP client would show it in its complaint.
            raise ValueError(f"{self.key_variable} holds characters that no key has: export it again")
        return key

    def _blackened(self, text: str) -> str:
        return text.replace(self._key(), "***")


def _details(said: Mapping[str, Any]) -> str:
    details = said.get("details")
    return f" ({details})" if details else ""


def _same_site(url: str, base_url: str) -> bool:
    """Whether `url` is on the API's host, or both are the provider's: its regions have hosts of their own."""
    asked, base = urlsplit(url), urlsplit(base_url)
    beside = any(
        (asked.hostname or "").endswith(site) and (base.hostname or "").endswith(site) for site in PROVIDER
    )
    return asked.scheme == base.scheme and (asked.netloc == base.netloc or beside)

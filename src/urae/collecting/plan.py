"""What a collection is to be: which images are ordered of whom, into which folder, and what that is expected to cost.

Shapes are drawn from the teacher's mix and seeds from the collection's, for each image by itself, so that more prompts
or copies change nothing about the others.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from urae.collecting.orders import Account, accounts_of, read_orders
from urae.collecting.teachers.teacher import ImageOrder, Teacher
from urae.data.manifest import listed
from urae.exports import takes
from urae.io import check_can_write

__all__ = ["JOURNAL", "CollectionPlan", "CollectionRequest", "image_orders", "plan_collection"]

JOURNAL = "orders.jsonl"


@dataclass(frozen=True, kw_only=True)
class CollectionRequest:
    """How many images are ordered, how long they are waited for, and what they may cost."""

    copies: int = field(default=1, metadata={"min": 1})
    """Images of each prompt."""
    seed: int = 0
    """Of the shapes and of the images."""
    licence: str | None = None
    """Of the images, for their records."""
    limit: float = field(default=math.inf, metadata={"min": 0})
    """The most that the folder may cost, over all runs, in the teacher's currency."""
    retries: int = field(default=8, metadata={"min": 0})
    """Of a request to the teacher after 429, 5xx, a timeout or damage."""
    pause: float = 1.0
    """Seconds before the first retry, twice as many before each further one, to 60."""
    patience: float = 600.0
    """Seconds to wait for an image that is ordered; after them it stays for the next run."""


@dataclass(frozen=True, kw_only=True)
class CollectionPlan(CollectionRequest):
    """What `run_collection` does, before anything is spent."""

    teacher: Teacher
    out: Path
    """Folder of the collection."""
    orders: tuple[ImageOrder, ...]
    """The images that are asked for now."""
    num_images: int
    """That are asked for, now or earlier."""
    num_arrived: int
    num_refused: int
    num_outstanding: int
    """Ordered, to be fetched."""
    spent: float
    """By earlier runs."""

    @property
    def price(self) -> float:
        """Of an image, as expected."""
        return self.teacher.price

    @property
    def num_to_order(self) -> int:
        return self.num_images - self.num_arrived - self.num_refused - self.num_outstanding

    @property
    def cost(self) -> float:
        """Of what is to be ordered, as expected."""
        return self.num_to_order * self.price

    def __str__(self) -> str:
        mix = ", ".join(f"{shape}={weight:g}" for shape, weight in self.teacher.shapes.items())
        lines = [
            f"teacher: {self.teacher.name}, shapes: {mix}",
            f"images: {self.num_images}, arrived before: {self.num_arrived}, refused before: {self.num_refused}, "
            f"ordered and to be fetched: {self.num_outstanding}, to order: {self.num_to_order}",
        ]
        if self.price or self.spent:
            lines.append(
                f"cost, expected: {self.cost:.2f} ({self.price:g} each), spent before: {self.spent:.2f}"
            )
        return "\n".join(lines)


@takes(CollectionRequest)
def plan_collection(
    prompts: Sequence[str], teacher: Teacher, out: str | Path, **asked: Any
) -> CollectionPlan:
    """Images of each prompt, of this teacher, into the folder `out`. Sends and writes nothing.

    The other arguments are the fields of `CollectionRequest`. `ValueError` for prompts that stand twice, a limit
    without a price, or an `out` that is no folder; `CannotWrite` where it cannot be written.
    """
    out, request = Path(out), CollectionRequest(**asked)
    orders = image_orders(prompts, teacher, copies=request.copies, seed=request.seed)
    if math.isnan(request.limit) or (math.isfinite(request.limit) and not teacher.price):
        raise ValueError(
            f"a limit of {request.limit:g} has no effect as {teacher.name} has no price: give its price too"
        )
    check_can_write(out, folder=True)
    counted = _counted(orders, accounts_of(read_orders(out / JOURNAL)))
    return CollectionPlan(teacher=teacher, out=out, orders=tuple(orders), **asked, **counted)


def image_orders(prompts: Sequence[str], teacher: Teacher, *, copies: int, seed: int) -> list[ImageOrder]:
    """The orders for `copies` images of each prompt."""
    if not prompts or copies < 1:
        raise ValueError(
            f"there are {len(prompts)} prompts and {copies} copies: expected at least one of each"
        )
    twice = [prompt for prompt, count in Counter(prompts).items() if count > 1]
    if twice:
        raise ValueError(
            f"prompts stand more than once, keep one each and raise copies instead: {listed(twice)}"
        )
    return [_drawn(prompt, copy, teacher, seed) for copy, prompt in product(range(copies), prompts)]


def _drawn(prompt: str, copy: int, teacher: Teacher, seed: int) -> ImageOrder:
    key = hashlib.sha256(json.dumps([prompt, copy]).encode()).hexdigest()[:16]
    draw = random.Random(f"{seed} {key}")
    (shape,) = draw.choices(list(teacher.shapes), weights=list(teacher.shapes.values()))
    return ImageOrder(key=key, prompt=prompt, shape=shape, seed=draw.randrange(2**31))


def _counted(orders: Sequence[ImageOrder], accounts: dict[str, Account]) -> dict[str, Any]:
    settled = {key: account for key, account in accounts.items() if account.state != "open"}
    states = Counter(account.state for account in settled.values())
    return {
        "num_images": len({order.key for order in orders} | settled.keys()),
        "num_arrived": states["arrived"],
        "num_refused": states["refused"],
        "num_outstanding": states["outstanding"],
        "spent": sum(account.spent for account in accounts.values()),
    }

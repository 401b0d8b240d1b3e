"""What a collection is to be: which images are ordered of whom, into which folder, and what that is expected to cost.

Shapes are drawn from the teacher's mix and seeds from the collection's, for each image by itself, so that more prompts
or copies change nothing about the others. A file is named after its prompt's id, where there is one.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from urae.collecting.orders import Account, accounts_of, read_orders
from urae.collecting.teachers.teacher import ImageOrder, Teacher, mix_of
from urae.data.manifest import listed
from urae.data.pixels import trains_at
from urae.exports import takes
from urae.io import check_can_write, check_file_name
from urae.resolution import Size

__all__ = [
    "JOURNAL",
    "CollectionPlan",
    "CollectionRequest",
    "Prompts",
    "image_orders",
    "plan_collection",
    "with_shapes_for",
]

Prompts = Sequence[str] | Mapping[str, str]
"""Texts, or texts by id."""

JOURNAL = "orders.jsonl"


@dataclass(frozen=True, kw_only=True)
class CollectionRequest:
    """How many images are ordered, how long they are waited for, and what they may cost."""

    size: int = field(default=0, metadata={"min": 0})
    """Px at which the images will be trained on, 0 if that is open; shapes that it would leave out are refused."""
    copies: int = field(default=1, metadata={"min": 1})
    """Images of each prompt."""
    seed: int = 0
    """Seed of the shapes and of the images."""
    licence: str | None = None
    """Licence of the images, for their records."""
    limit: float = field(default=math.inf, metadata={"min": 0})
    """The most that the folder may cost, over all runs, in the teacher's currency."""
    retries: int = field(default=8, metadata={"min": 0})
    """Repeats of a request to the teacher after 429, 5xx, a timeout or damage."""
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
    cost: float
    """Of what is to be ordered, as expected."""

    @property
    def num_to_order(self) -> int:
        return self.num_images - self.num_arrived - self.num_refused - self.num_outstanding

    def __str__(self) -> str:
        mix = ", ".join(f"{shape}={weight:g}" for shape, weight in self.teacher.shapes.items())
        lines = [
            f"teacher: {self.teacher.name}, shapes: {mix}",
            *([f"for training at {self.size} px: every shape is large enough"] if self.size else []),
            f"terms: {self.teacher.terms}",
            f"images: {self.num_images}, arrived before: {self.num_arrived}, refused before: {self.num_refused}, "
            f"ordered and to be fetched: {self.num_outstanding}, to order: {self.num_to_order}",
        ]
        prices = sorted({self.teacher.price_of(shape) for shape in self.teacher.shapes})
        if prices[-1] or self.spent:
            each = " to ".join(f"{price:.4g}" for price in (prices[0], prices[-1])[: len(prices)])
            lines.append(f"cost, expected: {self.cost:.2f} ({each} each), spent before: {self.spent:.2f}")
        return "\n".join(lines)


@takes(CollectionRequest)
def plan_collection(prompts: Prompts, teacher: Teacher, out: str | Path, **asked: Any) -> CollectionPlan:
    """Images of each prompt, of this teacher, into the folder `out`. Sends and writes nothing.

    The other arguments are the fields of `CollectionRequest`. `ValueError` for prompts that stand twice, a
    teacher whose price nobody has said, a limit without a price, shapes that are too small for `size`,
    or an `out` that is no folder; `CannotWrite` where it cannot be written.
    """
    out, request = Path(out), CollectionRequest(**asked)
    orders = image_orders(prompts, teacher, copies=request.copies, seed=request.seed)
    _check_prices(teacher, request.limit)
    check_can_write(out, folder=True)
    accounts = accounts_of(read_orders(out / JOURNAL))
    if request.size:
        _check_sizes(teacher, request.size, arrived=_arrived_sizes(orders, accounts))
    counted = _counted(orders, accounts, teacher)
    return CollectionPlan(teacher=teacher, out=out, orders=tuple(orders), **asked, **counted)


def image_orders(prompts: Prompts, teacher: Teacher, *, copies: int, seed: int) -> list[ImageOrder]:
    """The orders for `copies` images of each prompt."""
    if not prompts or copies < 1:
        raise ValueError(
            f"there are {len(prompts)} prompts and {copies} copies: expected at least one of each"
        )
    by_id = prompts if isinstance(prompts, Mapping) else dict.fromkeys(prompts, "")
    if len(by_id) < len(prompts):
        twice = [prompt for prompt, count in Counter(prompts).items() if count > 1]
        raise ValueError(
            f"prompts are given more than once: keep one of each and raise copies instead: {listed(twice)}"
        )
    named = list(prompts.items()) if isinstance(prompts, Mapping) else [("", text) for text in prompts]
    orders = [order for copy in range(copies) for order in _drawn_all(named, copy, teacher, seed)]
    _check_names([order.name for order in orders])
    return orders


def with_shapes_for(teacher: Any, size: int) -> Any:
    """The teacher with a mix of the shapes that training at `size` px takes, of each aspect ratio the smallest. One
    without any stays as it is, for `plan_collection` to say what it gives."""
    by_ratio: dict[float, tuple[int, str]] = {}
    for shape, (width, height) in teacher.sizes.items():
        usual = shape in teacher.shapes or max(width, height) <= 2 * min(width, height)
        if usual and trains_at((width, height), size):
            ratio = round(width / height, 1) if width > height else -round(height / width, 1)
            by_ratio[ratio] = min(by_ratio.get(ratio, (2**63, "")), (width * height, shape))
    return (
        replace(teacher, shapes=mix_of(*(shape for _, shape in by_ratio.values()))) if by_ratio else teacher
    )


def _drawn_all(named: Sequence[tuple[str, str]], copy: int, teacher: Teacher, seed: int) -> list[ImageOrder]:
    seen: set[str] = set()
    orders = []
    for name, prompt in named:
        # The key of a collection from before there were ids; only a second prompt of the same words needs its own.
        parts = [prompt, copy, name] if prompt in seen else [prompt, copy]
        seen.add(prompt)
        file = name if copy == 0 or not name else f"{name}-{copy + 1}"
        orders.append(_drawn(prompt, parts, file, teacher, seed))
    return orders


def _drawn(prompt: str, parts: Sequence[Any], name: str, teacher: Teacher, seed: int) -> ImageOrder:
    key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
    draw = random.Random(f"{seed} {key}")
    (shape,) = draw.choices(list(teacher.shapes), weights=list(teacher.shapes.values()))
    return ImageOrder(key=key, name=name or key, prompt=prompt, shape=shape, seed=draw.randrange(2**31))


def _check_names(names: Sequence[str]) -> None:
    for name in names:
        check_file_name(name)
    twice = [name for name, count in Counter(name.casefold() for name in names).items() if count > 1]
    if twice:
        raise ValueError(f"several images would be called {listed(twice)}: give each prompt an id of its own")


def _check_prices(teacher: Teacher, limit: float) -> None:
    prices = [teacher.price_of(shape) for shape in teacher.shapes]
    if any(map(math.isnan, prices)):
        raise ValueError(
            f"the price of an image of {teacher.name} is not known here: give it with --price, 0 if it is free"
        )
    if math.isnan(limit) or (math.isfinite(limit) and not any(prices)):
        raise ValueError(
            f"a limit of {limit:g} has no effect as {teacher.name} has no price: give its price too"
        )


def _check_sizes(teacher: Teacher, size: int, *, arrived: Mapping[str, Size]) -> None:
    """Refuse shapes whose images training at `size` px would leave out, before any is paid for."""
    sizes = {**teacher.sizes, **arrived}
    small = {
        shape: sizes[shape]
        for shape in teacher.shapes
        if shape in sizes and not trains_at(sizes[shape], size)
    }
    if small:
        fitting = [shape for shape in sizes if trains_at(sizes[shape], size)]
        remedy = f"take {listed(fitting)}" if fitting else "train at a smaller size, or ask another teacher"
        given = listed([f"{shape} ({width}x{height})" for shape, (width, height) in small.items()])
        raise ValueError(
            f"{teacher.name} would give images that are too small to train on at {size} px, for {given}: {remedy}"
        )
    if unknown := [shape for shape in teacher.shapes if shape not in sizes]:
        raise ValueError(
            f"the size that {teacher.name} gives for {listed(unknown)} is unknown until one of each has arrived: "
            "order a few without the size of training (--num 20, no --for), then the rest with it"
        )


def _arrived_sizes(orders: Sequence[ImageOrder], accounts: Mapping[str, Account]) -> dict[str, Size]:
    """The sizes of the shapes of which images have arrived."""
    came = {order.shape: accounts[order.key].image for order in orders if order.key in accounts}
    return {shape: (image["size"][0], image["size"][1]) for shape, image in came.items() if image}


def _counted(orders: Sequence[ImageOrder], accounts: dict[str, Account], teacher: Teacher) -> dict[str, Any]:
    settled = {key: account for key, account in accounts.items() if account.state != "open"}
    states = Counter(account.state for account in settled.values())
    return {
        "num_images": len({order.key for order in orders} | settled.keys()),
        "num_arrived": states["arrived"],
        "num_refused": states["refused"],
        "num_outstanding": states["outstanding"],
        "cost": sum(teacher.price_of(order.shape) for order in orders if order.key not in settled),
        "spent": sum(account.spent for account in accounts.values()),
    }

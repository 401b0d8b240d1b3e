"""Synthetic data: an image of every prompt from a teacher (paper, Sec. 2.2 and 3.1), each ordered once.

A collection is a folder: `orders.jsonl` is the journal of all that was ordered, paid, refused and received (see
`orders`), `images/` holds the images, and `manifest.jsonl` the records. A run that is stopped or killed at any moment
goes on where it was: tickets that are out are fetched first, an image that is there is never ordered again.

What can go wrong on the way is told apart by what it costs. No answer to an order, and every failure to fetch: asked
again after a growing pause, or the one that the server names. A refusal: recorded, never repeated. A ticket that leads
to nothing: ordered anew. No money, a wrong key: the run ends, with what it has.
"""

from __future__ import annotations

import hashlib
import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from urae.collecting.orders import Account, Orders, is_cost, orders_sent
from urae.collecting.plan import JOURNAL, CollectionPlan, Prompts, plan_collection
from urae.collecting.results import Collection, collection_of
from urae.collecting.teachers.teacher import (
    Expired,
    Gone,
    ImageOrder,
    Later,
    Moderated,
    TakenOrder,
    Teacher,
    Unserved,
)
from urae.data import write_manifest
from urae.data.manifest import MANIFEST
from urae.data.record import suffix_of
from urae.io import (
    PICTURE_SUFFIXES,
    Journal,
    Progress,
    Unreadable,
    decode,
    json_line,
    parse_json_object,
    remove_leftovers,
    size_of,
    write_bytes,
)
from urae.resolution import Size

__all__ = ["collect", "run_collection"]

IMAGES = "images"
ORDERS_A_RUN = 2
"""Of one image, where the first came to nothing."""
LONGEST_PAUSE = 60.0
READABLE = ("animated", "transparent", "depth", "colours")
"""Reasons for which a whole picture is not trained on; it is paid and kept all the same."""


def collect(prompts: Prompts, teacher: Teacher, out: str | Path, **options: Any) -> Collection:
    """Order images of each prompt into the folder `out`, and return what is there; options and errors as of
    `plan_collection` and `run_collection`."""
    return run_collection(plan_collection(prompts, teacher, out, **options))


def run_collection(plan: CollectionPlan) -> Collection:
    """Order and fetch what the plan asks for, and what earlier runs have ordered.

    `ValueError` for a folder with other images; `Unserved` where the teacher fails for good. What has arrived is kept
    in any case, and in the manifest.
    """
    with Journal(plan.out / JOURNAL) as journal:
        _claim(journal, plan)
        run = _Collecting(plan, Orders(journal))
        wanted = run.clear_up()
        try:
            run.settle_all(wanted)
        finally:
            collection = collection_of(plan, wanted, run.orders, unfetched=run.unfetched, limited=run.limited)
            if collection.records:
                write_manifest(collection.records, collection.manifest)
    return collection


def _claim(journal: Journal, plan: CollectionPlan) -> None:
    """The folder's first line; `ValueError` if it was opened for something else."""
    if not journal.lines and (plan.out / MANIFEST).exists():
        raise ValueError(
            f"{plan.out} holds another data set, whose manifest would be lost: give another folder"
        )
    teacher = plan.teacher
    asked = {"teacher": teacher.name, "settings": teacher.settings(), "shapes": dict(teacher.shapes)}
    opened = parse_json_object(json_line({**asked, "seed": plan.seed}), name="the plan")
    if not journal.lines:
        journal.append({"event": "opened", **opened})
    before = {name: journal.lines[0].get(name) for name in opened}
    if before != opened:
        was = ", ".join(f"{name} {before[name]}" for name in opened if before[name] != opened[name])
        raise ValueError(f"{plan.out} was collected with {was}: ask for the same, or give another folder")


class _Collecting:
    """The state that the workers of one run share."""

    def __init__(self, plan: CollectionPlan, orders: Orders) -> None:
        self.plan, self.teacher, self.orders = plan, plan.teacher, orders
        self.images = plan.out / IMAGES
        self.pace = _Pace(plan.teacher.rate)
        self.priced = any(plan.teacher.price_of(shape) for shape in plan.teacher.shapes)
        self.closed, self.leaving = threading.Event(), threading.Event()
        """No more orders; no more waiting for what is ordered either."""
        self.unfetched: dict[ImageOrder, str] = {}
        self.say: Callable[[str], None] = print
        self.limited = False
        self.counting = threading.Lock()
        # One order at a time, where tickets are given: a kill then loses one answer at the most.
        self.gate: AbstractContextManager = threading.Lock() if self.teacher.gives_tickets else nullcontext()

    def clear_up(self) -> list[ImageOrder]:
        """Find out what a killed run left: images without a line in the journal, orders without an answer.

        Returns what is asked for now, and with it what earlier runs have ordered or settled.
        """
        remove_leftovers(self.plan.out)
        remove_leftovers(self.images)
        begun = orders_sent(self.orders.journal.lines)
        for order in begun.values():
            account = self.orders.account(order)
            if account.underway or account.state == "outstanding":
                self._find(order, account)
        asked = {order.key for order in self.plan.orders}
        earlier = [order for key, order in begun.items() if key not in asked]
        return [
            *self.plan.orders,
            *(order for order in earlier if self.orders.account(order).state != "open"),
        ]

    def _find(self, wanted: ImageOrder, account: Account) -> None:
        files = (self.images / f"{wanted.name}{suffix}" for suffix in PICTURE_SUFFIXES)
        if found := next((file for file in files if file.is_file()), None):
            content = found.read_bytes()  # Only whole images have this name.
            self._record(wanted, found, content, size=_whole(content)[1], cost=account.at_stake)
        elif account.underway:
            self.orders.note(wanted, "lost", reason="the run ended before the answer came")

    def settle_all(self, wanted: Sequence[ImageOrder]) -> None:
        states = {order.key: self.orders.account(order).state for order in wanted}
        pending = [order for order in wanted if states[order.key] not in ("arrived", "refused")]
        pending.sort(key=lambda order: states[order.key] != "outstanding")
        if not pending:
            return
        self.teacher.ready()
        started, done = time.monotonic(), len(wanted) - len(pending)
        title = f"collecting from {self.teacher.name}"
        with (
            Progress(title, total=len(wanted), done=done) as progress,
            ThreadPoolExecutor(self.teacher.concurrency) as pool,
        ):
            self.say = progress.say
            futures = [pool.submit(self._settle, order) for order in pending]
            try:
                for future in as_completed(futures):
                    if future.result():
                        rate = (progress.done + 1 - done) / (time.monotonic() - started) * 60
                        cost = f", cost {self.orders.spent:.2f}" if self.priced else ""
                        progress.advance(f"{rate:.1f}/min{cost}")
            except KeyboardInterrupt:
                self.leaving.set()  # Tickets are on the disk: the next run fetches what is ordered.
                raise
            finally:
                self.closed.set()
                pool.shutdown(wait=True, cancel_futures=True)

    def _settle(self, wanted: ImageOrder) -> bool:
        """Whether the order is at its end: its image is here, or refused."""
        try:
            return self._ordered_and_fetched(wanted)
        except BaseException:
            # At once: until the main thread hears of it, others would go on ordering from a teacher that fails.
            self.closed.set()
            raise

    def _ordered_and_fetched(self, wanted: ImageOrder) -> bool:
        for _ in range(ORDERS_A_RUN):
            try:
                account = self.orders.account(wanted)
                there = TakenOrder(cost=account.cost, ticket=account.ticket)
                taken = there if account.state == "outstanding" else self._order(wanted)
                if taken is None:
                    return False
                self._fetch(wanted, taken)
                return True
            except Moderated as refusal:
                self.orders.note(wanted, "refused", prompt=wanted.prompt, reason=str(refusal))
                return True
            except Gone as gone:
                self.orders.note(wanted, "gone", reason=str(gone))
            except _Unfetched as reason:
                self.unfetched[wanted] = str(reason)
                return False
        return False

    def _order(self, wanted: ImageOrder) -> TakenOrder | None:
        """The order, once it is taken; None where none may be made any more."""
        for attempt in range(self.plan.retries + 1):
            with self.gate:
                if not (self.pace.wait(self.closed) and self._may_order(wanted)):
                    return None
                answer = self._send(wanted)
            if isinstance(answer, TakenOrder):
                return answer
            if answer.seconds > LONGEST_PAUSE:
                self.say(f"{self.teacher.name} asks to wait {answer.seconds:.0f} s before the next order")
            self.pace.hold(max(answer.seconds, self._pause(attempt)))
        raise Unserved(f"no order was taken in {self.plan.retries + 1} attempts: {answer}")

    def _may_order(self, wanted: ImageOrder) -> bool:
        with self.counting:
            price = self.teacher.price_of(wanted.shape)
            if self.orders.spent + price > self.plan.limit + 1e-9:
                self.limited = True
                self.closed.set()
                return False
            about = {"prompt": wanted.prompt, "shape": wanted.shape, "seed": wanted.seed, "price": price}
            named = {"name": wanted.name} if wanted.name != wanted.key else {}
            self.orders.note(wanted, "sending", **about, **named)
            return True

    def _send(self, wanted: ImageOrder) -> TakenOrder | Later:
        try:
            num_gone = self.orders.account(wanted).num_gone
            taken = self.teacher.order(replace(wanted, num_gone=num_gone))
        except (Later, Unserved) as failure:
            self.orders.note(wanted, "lost" if failure.ordered else "declined", reason=str(failure))
            if isinstance(failure, Unserved):
                raise
            return failure
        if not is_cost(taken.cost):
            price = self.teacher.price_of(wanted.shape)
            self.say(f"{self.teacher.name} names an impossible cost: counted as {price:g}")
            taken = replace(taken, cost=price)
        if not taken.image:
            self.orders.note(wanted, "ordered", ticket=taken.ticket, cost=taken.cost)
        return taken

    def _fetch(self, wanted: ImageOrder, taken: TakenOrder) -> None:
        """Keep the image of an order, waiting for it where need be."""
        if taken.image:
            self._keep_delivered(wanted, taken)
            return
        deadline, failures = time.monotonic() + self.plan.patience, 0
        while True:
            try:
                content = self.teacher.fetch(taken.ticket)
                if content is not None:
                    return self._keep(wanted, content, cost=0.0)
                seconds, failures = self.teacher.poll_every, 0
                if time.monotonic() > deadline:
                    raise _Unfetched(f"not ready after {self.plan.patience:g} s")
            except Later as later:
                seconds, failures = max(later.seconds, self._pause(failures)), failures + 1
                if failures > self.plan.retries:
                    raise (Gone if isinstance(later, Expired) else _Unfetched)(str(later)) from None
            if self.leaving.wait(seconds):
                raise _Unfetched("the run was stopped")

    def _keep_delivered(self, wanted: ImageOrder, taken: TakenOrder) -> None:
        try:
            self._keep(wanted, taken.image, cost=taken.cost)
        except Later as damage:
            self.orders.note(
                wanted, "ordered", ticket=taken.ticket, cost=taken.cost
            )  # It is paid all the same.
            raise Gone(str(damage)) from None

    def _keep(self, wanted: ImageOrder, content: bytes, *, cost: float) -> None:
        suffix, size = _whole(content)
        path = self.images / f"{wanted.name}{suffix}"
        write_bytes(path, content, sync=True)
        self._record(wanted, path, content, size=size, cost=cost)

    def _record(self, wanted: ImageOrder, path: Path, content: bytes, *, size: Size, cost: float) -> None:
        image = {
            "id": hashlib.sha256(content).hexdigest(),
            "file": f"{IMAGES}/{path.name}",
            "size": size,
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        self.orders.note(wanted, "arrived", image=image, cost=cost)

    def _pause(self, attempt: int) -> float:
        """Seconds, with some luck in it, so that many workers do not come back at once."""
        return min(self.plan.pause * 2**attempt, LONGEST_PAUSE) * random.uniform(0.75, 1.0)


class _Unfetched(Exception):
    """An image that is ordered does not come in this run."""


class _Pace:
    """When the next order may be sent."""

    def __init__(self, rate: float) -> None:
        self.interval, self.next, self.changing = 60 / rate, 0.0, threading.Lock()

    def wait(self, closed: threading.Event) -> bool:
        """Wait for the next turn; False where there is none any more."""
        while not closed.is_set():
            with self.changing:
                seconds = self.next - time.monotonic()
                if seconds <= 0:
                    self.next = time.monotonic() + self.interval
                    return True
            closed.wait(seconds)
        return False

    def hold(self, seconds: float) -> None:
        """No order before so many seconds from now."""
        with self.changing:
            self.next = max(self.next, time.monotonic() + seconds)


def _whole(content: bytes) -> tuple[str, Size]:
    """Suffix and size (px) of an image file; `Later` unless every pixel of it can be decoded."""
    try:
        size, suffix = size_of(content, name="the image"), suffix_of(content)
        decode(content, name="the image")
    except Unreadable as error:
        if error.reason not in READABLE:
            raise Later(f"the image came damaged ({error.detail or error.reason})") from None
    if suffix == ".jpg" and not content.rstrip(b"\0\n").endswith(b"\xff\xd9"):
        raise Later("the image came damaged (its end is missing)")
    return suffix, size

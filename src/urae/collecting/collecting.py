"""Synthetic data: an image of every prompt from a teacher (paper, Sec. 2.1 and 4.1), each ordered once.

A collection is a folder: `orders.jsonl` is the journal of all that was ordered, paid, refused and received (see
`orders`), `images/` holds the images, and `manifest.jsonl` the records. A run that is stopped or killed at any moment
goes on where it was: tickets that are out are fetched first, an image that is there is never ordered again.

What can go wrong on the way is told apart by what it costs. No answer to an order, and every failure to fetch: asked
again after a growing pause, or the one that the server names. A refusal: recorded, never repeated. A ticket that leads
to nothing: ordered anew. No money, a wrong key: the run ends, with what it has.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any

from PIL import Image

from urae.collecting.orders import Account, Orders, accounts_of
from urae.collecting.teachers.teacher import Expired, Gone, Later, Order, Refused, Request, Teacher, Unserved
from urae.data import Record, read_manifest, write_manifest
from urae.data.journal import Journal, read_journal, sync_folder
from urae.data.manifest import MANIFEST, listed
from urae.data.record import UNREADABLE, seen_size
from urae.io import Progress
from urae.resolution import Size

__all__ = ["Collection", "CollectionPlan", "collect", "plan_collection"]

JOURNAL, IMAGES = "orders.jsonl", "images"
SUFFIXES = {"PNG": ".png", "JPEG": ".jpg", "WEBP": ".webp"}
ORDERS_A_RUN = 2
"""Of one request, where the first came to nothing."""
LONGEST_PAUSE = 60.0


@dataclass(frozen=True, kw_only=True)
class CollectionPlan:
    """What `collect` would do, before anything is spent."""

    num_images: int
    """That are asked for, now or earlier."""
    num_arrived: int
    num_refused: int
    num_outstanding: int
    """Ordered, to be fetched."""
    spent: float
    """By earlier runs."""
    price: float
    """Of an image."""

    @property
    def num_to_order(self) -> int:
        return self.num_images - self.num_arrived - self.num_refused - self.num_outstanding

    @property
    def cost(self) -> float:
        """Of what is to be ordered, as expected."""
        return self.num_to_order * self.price


@dataclass(frozen=True, kw_only=True)
class Collection:
    """What a collection holds, and of each image that it lacks the prompt and the reason."""

    manifest: Path
    records: tuple[Record, ...]
    refused: tuple[tuple[str, str], ...]
    """By the teacher's moderation; not ordered again."""
    unfetched: tuple[tuple[str, str], ...]
    """Ordered, and not here yet: the next run fetches them."""
    failed: tuple[tuple[str, str], ...]
    """Ordered, and come to nothing; the next run orders them again."""
    num_not_ordered: int
    """Because the spending limit was reached."""
    twins: tuple[str, ...]
    """Files that are the same, byte for byte, as one before them, and are in no record."""
    removed: tuple[str, ...]
    """Files that arrived and are no longer there; they are not ordered again."""
    num_lost: int
    """Orders that may have been taken and paid though no answer came, over all runs."""
    spent: float
    """In the teacher's currency, over all runs, lost orders included."""


def plan_collection(
    prompts: Sequence[str], teacher: Teacher, out: str | Path, *, copies: int = 1, seed: int = 0
) -> CollectionPlan:
    """What `collect` with these arguments would order, and its cost. Sends and writes nothing."""
    asked = {request.key for request in _requests(prompts, teacher, copies=copies, seed=seed)}
    accounts = accounts_of(read_journal(Path(out) / JOURNAL))
    settled = {key: account for key, account in accounts.items() if account.state != "open"}
    states = [account.state for account in settled.values()]
    return CollectionPlan(
        num_images=len(asked | settled.keys()),
        num_arrived=states.count("arrived"),
        num_refused=states.count("refused"),
        num_outstanding=states.count("outstanding"),
        spent=sum(account.spent for account in accounts.values()),
        price=teacher.price,
    )


def collect(
    prompts: Sequence[str],
    teacher: Teacher,
    out: str | Path,
    *,
    copies: int = 1,
    seed: int = 0,
    limit: float = math.inf,
    licence: str | None = None,
    retries: int = 8,
    pause: float = 1.0,
    patience: float = 600.0,
) -> Collection:
    """Order `copies` images of each prompt into the folder `out`, and return what is there.

    Shapes are drawn from the teacher's mix and seeds from `seed`, for each image by itself, so that more prompts or
    copies change nothing about the others. limit: what the collection may cost in all, over all runs, in the
    teacher's currency. licence: of the images, as records name it. retries: of one request to the teacher, after
    pauses of `pause` seconds and twice as many each time, to 60. patience: seconds to wait for an image that is
    ordered; after them it stays for the next run.

    `ValueError` for prompts that stand twice, or a folder with other images; `Unserved` where the teacher
    fails for good. What has arrived is kept in any case, and in the manifest.
    """
    requests = _requests(prompts, teacher, copies=copies, seed=seed)
    _check_limit(limit, teacher)
    with Journal(Path(out) / JOURNAL) as journal:
        _claim(journal, teacher, seed=seed)
        run = _Run(
            teacher, Orders(journal), Path(out), limit=limit, retries=retries, pause=pause, patience=patience
        )
        requests = run.clear_up(requests)
        try:
            run.settle_all(requests)
        finally:
            collection = _summary(run, requests, licence)
            if collection.records:
                write_manifest(collection.records, collection.manifest)
    return collection


# --- what is asked for -------------------------------------------------------------------------------------


def _requests(prompts: Sequence[str], teacher: Teacher, *, copies: int, seed: int) -> list[Request]:
    if not prompts or copies < 1:
        raise ValueError(
            f"there are {len(prompts)} prompts and {copies} copies: expected at least one of each"
        )
    twice = [prompt for prompt, count in Counter(prompts).items() if count > 1]
    if twice:
        raise ValueError(
            f"prompts stand more than once, keep one each and raise copies instead: {listed(twice)}"
        )
    return [_request(prompt, copy, teacher, seed) for copy, prompt in product(range(copies), prompts)]


def _request(prompt: str, copy: int, teacher: Teacher, seed: int) -> Request:
    key = hashlib.sha256(json.dumps([prompt, copy]).encode()).hexdigest()[:16]
    draw = random.Random(f"{seed} {key}")
    (shape,) = draw.choices(list(teacher.shapes), weights=list(teacher.shapes.values()))
    return Request(key=key, prompt=prompt, shape=shape, seed=draw.randrange(2**31))


def _sent(lines: Sequence[dict[str, Any]]) -> dict[str, Request]:
    """The requests of which something was sent, by key."""
    fields = ("key", "prompt", "shape", "seed")
    sent = (line for line in lines if line["event"] == "sending")
    return {line["key"]: Request(**{name: line[name] for name in fields}) for line in sent}


def _claim(journal: Journal, teacher: Teacher, *, seed: int) -> None:
    """The folder's first line; `ValueError` if it was opened for something else."""
    folder = journal.path.parent
    if not journal.lines and (folder / MANIFEST).exists():
        raise ValueError(
            f"{folder} holds another data set, whose manifest would be lost: give another folder"
        )
    opened = {
        "teacher": teacher.name,
        "settings": teacher.settings(),
        "shapes": dict(teacher.shapes),
        "seed": seed,
    }
    if not journal.lines:
        journal.append({"event": "opened", **opened})
    before = {name: journal.lines[0].get(name) for name in opened}
    differing = [name for name in opened if before[name] != json.loads(json.dumps(opened[name]))]
    if differing:
        was = ", ".join(f"{name} {before[name]}" for name in differing)
        raise ValueError(f"{folder} was collected with {was}: ask for the same, or give another folder")


def _check_limit(limit: float, teacher: Teacher) -> None:
    if math.isfinite(limit) and not teacher.price:
        raise ValueError(
            f"a limit of {limit:g} has no effect as {teacher.name} has no price: give its price too"
        )


# --- the run -----------------------------------------------------------------------------------------------


class _Run:
    """The state that the workers of one run share."""

    def __init__(
        self,
        teacher: Teacher,
        orders: Orders,
        out: Path,
        *,
        limit: float,
        retries: int,
        pause: float,
        patience: float,
    ) -> None:
        self.teacher, self.orders, self.out = teacher, orders, out
        self.limit, self.retries, self.pause, self.patience = limit, retries, pause, patience
        self.pace = _Pace(teacher.rate)
        self.closed, self.leaving = threading.Event(), threading.Event()
        """No more orders; no more waiting for what is ordered either."""
        self.unfetched: dict[Request, str] = {}
        self.say: Callable[[str], None] = print
        self.limited = False
        self.counting = threading.Lock()
        # One order at a time, where tickets are given: a kill then loses one answer at the most.
        self.gate: AbstractContextManager = threading.Lock() if teacher.gives_tickets else nullcontext()
        (out / IMAGES).mkdir(exist_ok=True)

    def clear_up(self, requests: list[Request]) -> list[Request]:
        """Find out what a killed run left: images without a line in the journal, orders without an answer.

        Returns the requests, and with them those of earlier runs that are ordered or settled.
        """
        for part in (self.out / IMAGES).glob(".*.part"):
            part.unlink()
        begun = _sent(self.orders.journal.lines)
        for request in begun.values():
            account = self.orders.account(request)
            if account.underway or account.state == "outstanding":
                self._find(request, account)
        asked = {request.key for request in requests}
        earlier = [request for key, request in begun.items() if key not in asked]
        return requests + [request for request in earlier if self.orders.account(request).state != "open"]

    def _find(self, request: Request, account: Account) -> None:
        if found := sorted((self.out / IMAGES).glob(f"{request.key}.*")):
            content = found[0].read_bytes()  # Only whole images have this name.
            self._record(request, found[0], content, size=_whole(content)[1], cost=account.at_stake)
        elif account.underway:
            self.orders.lost(request, "the run ended before the answer came")

    def settle_all(self, requests: Sequence[Request]) -> None:
        states = {request.key: self.orders.account(request).state for request in requests}
        pending = [request for request in requests if states[request.key] not in ("arrived", "refused")]
        pending.sort(key=lambda request: states[request.key] != "outstanding")
        if not pending:
            return
        self.teacher.ready()
        started, done = time.monotonic(), len(requests) - len(pending)
        title = f"collecting from {self.teacher.name}"
        with Progress(title, total=len(requests), done=done) as progress, self._pool() as pool:
            self.say = progress.say
            futures = [pool.submit(self._settle, request) for request in pending]
            try:
                for future in as_completed(futures):
                    if future.result():
                        rate = (progress.done + 1 - done) / (time.monotonic() - started) * 60
                        cost = f", cost {self.orders.spent:.2f}" if self.teacher.price else ""
                        progress.advance(f"{rate:.1f}/min{cost}")
            except KeyboardInterrupt:
                self.leaving.set()  # Tickets are on the disk: the next run fetches what is ordered.
                raise
            finally:
                self.closed.set()
                pool.shutdown(wait=True, cancel_futures=True)

    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self.teacher.concurrency)

    def _settle(self, request: Request) -> bool:
        """Whether the request is at its end: its image is here, or refused."""
        try:
            return self._ordered_and_fetched(request)
        except BaseException:
            # At once: until the main thread hears of it, others would go on ordering from a teacher that fails.
            self.closed.set()
            raise

    def _ordered_and_fetched(self, request: Request) -> bool:
        for _ in range(ORDERS_A_RUN):
            try:
                account = self.orders.account(request)
                order = _out(account) if account.state == "outstanding" else self._order(request)
                if order is None:
                    return False
                self._fetch(request, order)
                return True
            except Refused as refusal:
                self.orders.refused(request, str(refusal))
                return True
            except Gone as gone:
                self.orders.gone(request, str(gone))
            except _Unfetched as reason:
                self.unfetched[request] = str(reason)
                return False
        return False

    def _order(self, request: Request) -> Order | None:
        """The order, once it is taken; None where none may be made any more."""
        for attempt in range(self.retries + 1):
            with self.gate:
                if not (self.pace.wait(self.closed) and self._may_order(request)):
                    return None
                answer = self._send(request)
            if isinstance(answer, Order):
                return answer
            if answer.seconds > LONGEST_PAUSE:
                self.say(f"{self.teacher.name} asks to wait {answer.seconds:.0f} s before the next order")
            self.pace.hold(max(answer.seconds, self._pause(attempt)))
        raise Unserved(f"no order was taken in {self.retries + 1} attempts: {answer}")

    def _may_order(self, request: Request) -> bool:
        with self.counting:
            if self.orders.spent + self.teacher.price > self.limit + 1e-9:
                self.limited = True
                self.closed.set()
                return False
            self.orders.sending(request, self.teacher.price)
            return True

    def _send(self, request: Request) -> Order | Later:
        try:
            num_gone = self.orders.account(request).num_gone
            order = self.teacher.order(replace(request, num_gone=num_gone))
        except (Later, Unserved) as failure:
            note = self.orders.lost if failure.ordered else self.orders.declined
            note(request, str(failure))
            if isinstance(failure, Unserved):
                raise
            return failure
        if not order.image:
            self.orders.ordered(request, order)
        return order

    def _fetch(self, request: Request, order: Order) -> None:
        """Keep the image of an order, waiting for it where need be."""
        if order.image:
            self._keep_delivered(request, order)
            return
        deadline, failures = time.monotonic() + self.patience, 0
        while True:
            try:
                content = self.teacher.fetch(order.ticket)
                if content is not None:
                    return self._keep(request, content, cost=0.0)
                seconds, failures = self.teacher.poll_every, 0
                if time.monotonic() > deadline:
                    raise _Unfetched(f"not ready after {self.patience:g} s")
            except Later as later:
                seconds, failures = max(later.seconds, self._pause(failures)), failures + 1
                if failures > self.retries:
                    raise (Gone if isinstance(later, Expired) else _Unfetched)(str(later)) from None
            if self.leaving.wait(seconds):
                raise _Unfetched("the run was stopped")

    def _keep_delivered(self, request: Request, order: Order) -> None:
        try:
            self._keep(request, order.image, cost=order.cost)
        except Later as damage:
            self.orders.ordered(request, order)  # It is paid all the same.
            raise Gone(str(damage)) from None

    def _keep(self, request: Request, content: bytes, *, cost: float) -> None:
        suffix, size = _whole(content)
        path = self.out / IMAGES / f"{request.key}{suffix}"
        part = path.with_name(f".{path.name}.part")
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
        sync_folder(path.parent)
        self._record(request, path, content, size=size, cost=cost)

    def _record(self, request: Request, path: Path, content: bytes, *, size: Size, cost: float) -> None:
        image = {
            "id": hashlib.sha256(content).hexdigest(),
            "file": f"{IMAGES}/{path.name}",
            "size": size,
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        self.orders.arrived(request, image, cost=cost)

    def _pause(self, attempt: int) -> float:
        """Seconds, with some luck in it, so that many workers do not come back at once."""
        return min(self.pause * 2**attempt, LONGEST_PAUSE) * random.uniform(0.75, 1.0)


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


def _out(account: Account) -> Order:
    return Order(cost=account.cost, ticket=account.ticket)


def _whole(content: bytes) -> tuple[str, Size]:
    """Suffix and size (px) of an image file; `Later` unless every pixel of it can be decoded."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            kind = image.format
            image.verify()  # PNG's checksums, which decoding passes over.
        with Image.open(io.BytesIO(content)) as image:
            image.load()
            size = seen_size(image)
    except UNREADABLE as error:
        raise Later(f"the image came damaged ({error})") from None
    if kind == "JPEG" and not content.rstrip(b"\0\n").endswith(b"\xff\xd9"):
        raise Later("the image came damaged (its end is missing)")
    if kind not in SUFFIXES:
        raise Later(f"the image is {kind}: expected {', '.join(SUFFIXES)}")
    return SUFFIXES[kind], size


# --- what came of it ---------------------------------------------------------------------------------------


def _summary(run: _Run, requests: Sequence[Request], licence: str | None) -> Collection:
    accounts = {request: run.orders.account(request) for request in requests}
    arrived = {r: a for r, a in accounts.items() if a.state == "arrived"}
    here = {r: a for r, a in arrived.items() if (run.out / a.image["file"]).is_file()}
    records = _records(here, run, licence)
    num_open = sum(account.state == "open" for account in accounts.values())
    return Collection(
        manifest=run.out / MANIFEST,
        records=tuple(records.values()),
        refused=tuple((r.prompt, a.reason) for r, a in accounts.items() if a.state == "refused"),
        unfetched=tuple((r.prompt, reason) for r, reason in run.unfetched.items()),
        failed=tuple((r.prompt, a.reason) for r, a in accounts.items() if a.state == "open" and a.num_gone),
        num_not_ordered=num_open if run.limited else 0,
        twins=tuple(a.image["file"] for a in here.values() if records[a.image["id"]].file != a.image["file"]),
        removed=tuple(a.image["file"] for r, a in arrived.items() if r not in here),
        num_lost=sum(account.num_lost for account in run.orders.accounts.values()),
        spent=run.orders.spent,
    )


def _records(here: dict[Request, Account], run: _Run, licence: str | None) -> dict[str, Record]:
    """By id. Captions that were added to the manifest stay, and so does a licence that is not given anew."""
    manifest, teacher = run.out / MANIFEST, run.teacher
    before = {record.id: record for record in read_manifest(manifest)} if manifest.is_file() else {}
    records: dict[str, Record] = {}
    for request, account in here.items():
        image = account.image
        known = before.get(image["id"])
        record = Record(
            id=image["id"],
            file=image["file"],
            size=tuple(image["size"]),
            captions={"original": request.prompt} | (known.captions if known else {}),
            source=teacher.name,
            licence=licence or (known.licence if known else None),
            teacher={
                "name": teacher.name,
                **teacher.settings(),
                "shape": request.shape,
                "seed": request.seed,
            },
            time=image["time"],
        )
        records.setdefault(record.id, record)
    return records

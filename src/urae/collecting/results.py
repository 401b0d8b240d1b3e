"""What a collection holds when a run ends: the records of what is here, and of the rest how much and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from urae.collecting.orders import Account, Orders
from urae.collecting.plan import CollectionPlan
from urae.collecting.teachers.teacher import ImageOrder
from urae.data import Record, read_manifest
from urae.data.manifest import MANIFEST

__all__ = ["Collection", "collection_of"]


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


def collection_of(
    plan: CollectionPlan,
    wanted: Sequence[ImageOrder],
    orders: Orders,
    *,
    unfetched: Mapping[ImageOrder, str],
    limited: bool,
) -> Collection:
    """The collection as its journal and its folder have it. `unfetched`: why an image that is ordered did not come;
    `limited`: whether the limit kept others from being ordered."""
    accounts = {order: orders.account(order) for order in wanted}
    arrived = {o: a for o, a in accounts.items() if a.state == "arrived"}
    here = {o: a for o, a in arrived.items() if (plan.out / a.image["file"]).is_file()}
    records = _records(here, plan)
    num_open = sum(account.state == "open" for account in accounts.values())
    return Collection(
        manifest=plan.out / MANIFEST,
        records=tuple(records.values()),
        refused=tuple((o.prompt, a.reason) for o, a in accounts.items() if a.state == "refused"),
        unfetched=tuple((o.prompt, reason) for o, reason in unfetched.items()),
        failed=tuple((o.prompt, a.reason) for o, a in accounts.items() if a.state == "open" and a.num_gone),
        num_not_ordered=num_open if limited else 0,
        twins=tuple(a.image["file"] for a in here.values() if records[a.image["id"]].file != a.image["file"]),
        removed=tuple(a.image["file"] for o, a in arrived.items() if o not in here),
        num_lost=sum(account.num_lost for account in orders.accounts.values()),
        spent=orders.spent,
    )


def _records(here: Mapping[ImageOrder, Account], plan: CollectionPlan) -> dict[str, Record]:
    """By id. Captions that were added to the manifest stay, and so does a licence that is not given anew."""
    manifest, teacher = plan.out / MANIFEST, plan.teacher
    before = {record.id: record for record in read_manifest(manifest)} if manifest.is_file() else {}
    about = {"name": teacher.name, **teacher.settings()}
    records: dict[str, Record] = {}
    for order, account in here.items():
        image = account.image
        known = before.get(image["id"])
        record = Record(
            id=image["id"],
            file=image["file"],
            size=tuple(image["size"]),
            captions={"original": order.prompt} | (known.captions if known else {}),
            source=teacher.name,
            licence=plan.licence or (known.licence if known else None),
            teacher={**about, "shape": order.shape, "seed": order.seed},
            time=image["time"],
        )
        records.setdefault(record.id, record)
    return records

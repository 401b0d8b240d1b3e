"""`urae data collect`: prompts in, a folder of a teacher's images with a manifest out; the cost is shown first."""

from __future__ import annotations

import math
import pkgutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import fields
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from urae.cli.named import settings_from_yaml
from urae.cli.options import Fields
from urae.cli.printed import say
from urae.cli.spending import DryRun, Yes, agreed, tell_time
from urae.collecting import (
    Collection,
    CollectionPlan,
    CollectionRequest,
    LocalPipeline,
    Teacher,
    plan_collection,
    read_prompts,
    run_collection,
)
from urae.collecting.orders import read_orders
from urae.collecting.plan import JOURNAL, Prompts, with_shapes_for
from urae.collecting.prompt_files import SHIPPED
from urae.collecting.teachers import KNOWN, Known
from urae.errors import UraeError
from urae.io import check_can_write

__all__ = ["collect"]

TEACHERS: Mapping[str, Known] = {**KNOWN, "local": Known(kind="urae.cli.data.local:Local")}
"""The classes whose fields are the settings; the last needs diffusers, which the others do not wait for."""


def collect(
    out: Annotated[Path, typer.Argument(help="Folder for the images, the manifest and the journal.")],
    request: Annotated[dict[str, Any], Fields(CollectionRequest, without=("pause", "size"))],
    teacher: Annotated[
        str,
        typer.Option(help=f"{', '.join(KNOWN)} (any such images endpoint) or local (a pipeline here)."),
    ] = "flux-pro-1.1-ultra",
    prompts: Annotated[
        str,
        typer.Option(
            help="A .txt, .jsonl, .parquet or .json file, or shipped: 331 of our own. An id names the image."
        ),
    ] = SHIPPED,
    column: Annotated[
        str, typer.Option(help="Key or column of the prompts in .jsonl and .parquet.")
    ] = "prompt",
    num: Annotated[int, typer.Option(min=0, help="The first so many prompts; 0 for all.")] = 0,
    shape: Annotated[
        list[str],
        typer.Option(
            help="shape=weight of the mix, such as 16:9=2; repeat. Default: the teacher's, or those for --for."
        ),
    ] = [],  # noqa: B006
    recipe: Annotated[
        str,
        typer.Option(
            "--for", help="Recipe by name or YAML file: only shapes that it will train on are ordered."
        ),
    ] = "",
    price: Annotated[
        float,
        typer.Option(help="Of an image at the teacher, where it is not known here; 0 for one that is free."),
    ] = math.nan,
    settings: Annotated[
        list[str], typer.Option("--set", help="A setting of the teacher, as name=value; repeat for several.")
    ] = [],  # noqa: B006
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Collect synthetic images from a teacher.

    Stopped or killed at any moment, the same command continues where it was, and pays for no image twice.

    Example: urae data collect data/2k --for flux_2k --set raw=true --limit 20
    """
    check_can_write(out, folder=True)
    size = _training_size(recipe) if recipe else 0
    priced = settings if math.isnan(price) else [*settings, f"price={price!r}"]
    chosen = make_teacher(teacher, priced, shape, size=size)
    asked = _first(read_prompts(prompts, column=column), num)
    plan = plan_collection(asked, chosen, out, size=size, **request)
    say(plan)
    came = [line for line in read_orders(plan.out / JOURNAL) if line["event"] == "arrived"]
    at_a_time = 0 if isinstance(chosen, LocalPipeline) else chosen.concurrency
    tell_time(plan.num_to_order + plan.num_outstanding, came, at_a_time=at_a_time)
    if agreed("Order them?", costs=plan.cost, dry_run=dry_run, yes=yes):
        _run(plan)


def _training_size(recipe: str) -> int:
    from urae.cli.train import chosen_recipe  # which imports torch

    return chosen_recipe(recipe, []).size


def _first(prompts: Prompts, num: int) -> Prompts:
    if isinstance(prompts, Mapping):
        return dict(islice(prompts.items(), num or None))
    return prompts[: num or None]


def _run(plan: CollectionPlan) -> None:
    collection = run_collection(plan)
    _report(collection, plan.teacher)
    if not collection.records:
        raise UraeError(f"none of {plan.num_images} images arrived: the messages above say why")


def make_teacher(name: str, settings: list[str], shapes: list[str], *, size: int = 0) -> Teacher:
    """A teacher by its name, settings "name=value" and mix "shape=weight". Without a mix it is the teacher's own, or
    that for training at `size` px."""
    if name not in TEACHERS:
        raise ValueError(f"teacher is {name!r}: expected one of {', '.join(TEACHERS)}")
    known = TEACHERS[name]
    kind = pkgutil.resolve_name(known.kind)
    given = {**known.settings, **_given(name, known, kind, settings), **known.fixed}
    if "options" in known.settings:
        given["options"] = {**known.settings["options"], **given["options"]}
    if name == "openai" and "model" not in given:
        raise ValueError("the openai teacher needs the name of its model: give it with --set model=NAME")
    if shapes:
        return _finished(kind(**{**given, "shapes": _mix(shapes)}))
    return _finished(with_shapes_for(kind(**given), size) if size else kind(**given))


def _given(name: str, known: Known, kind: type, settings: list[str]) -> dict[str, Any]:
    valid = [
        one.name
        for one in fields(kind)
        if one.name not in ("shapes", "offered") and one.name not in known.fixed
    ]
    texts = [key for key, hint in get_type_hints(kind).items() if hint is str]
    given = settings_from_yaml(settings, texts=texts)
    if unknown := sorted(given.keys() - set(valid)):
        raise ValueError(f"{unknown[0]} is not a setting of {name}: valid ones are {', '.join(valid)}")
    return given


def _finished(made: Any) -> Teacher:
    return made.teacher() if hasattr(made, "teacher") else made


def _mix(given: list[str]) -> dict[str, float]:
    mix = {}
    for text in given:
        shape, _, weight = text.partition("=")
        if shape in mix:
            raise ValueError(f"the shape {shape!r} is given twice: give it once")
        try:
            mix[shape] = float(weight or 1)
        except ValueError as error:
            raise ValueError(
                f"the weight of the shape {text!r} is not a number: expected one as in 16:9=2"
            ) from error
    return mix


def _report(collection: Collection, teacher: Teacher) -> None:
    lists = {
        "refused by the teacher": collection.refused,
        "ordered and not here yet, run again to fetch": collection.unfetched,
        "ordered and come to nothing, run again to order anew": collection.failed,
    }
    for title, reasons in lists.items():
        if reasons:
            say(f"{title}: {len(reasons)}")
        for (prompt, reason), count in Counter(reasons).items():
            say(f"  {prompt[:60]!r}: {reason}{f' ({count} times)' if count > 1 else ''}")
    if collection.num_not_ordered:
        say(f"not ordered, as the limit is reached: {collection.num_not_ordered}")
    for title, files in (("the same as another", collection.twins), ("removed since", collection.removed)):
        if files:
            say(f"left out as {title}: {', '.join(files)}")
    if collection.num_lost and not isinstance(teacher, LocalPipeline):
        say(f"orders without an answer, which may have been paid: {collection.num_lost}")
    if collection.spent:
        say(f"spent: {collection.spent:.2f}")
    if collection.records:
        say(f"wrote {collection.manifest}: {len(collection.records)} images")

"""What a plan costs before it is begun: GPU hours of training and drawing, pictures of others, the judge's tokens."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from urae import planning
from urae.baselines import stock_of
from urae.collecting.teachers.flux import FluxProUltra
from urae.generation import TwoPass
from urae.judge.plan import Cost
from urae.planning import Gpu
from urae.reproduce.cells import TRUTH, cell_of, method_of
from urae.reproduce.judging import judged_columns, judging_cost
from urae.reproduce.missing import set_needs
from urae.reproduce.plan import Made, TablePlan, TableRow
from urae.reproduce.prompts import prompts_of
from urae.reproduce.training import adapter_file, adapters_of, fitted, recipe_of
from urae.training import Recipe

__all__ = ["Expense", "expenses", "judge_cost"]

NATIVE = 1024
"""Side of the native picture of the two-pass methods, px."""
PRICES = {"ultra": FluxProUltra().price}
"""Of a picture by the service that a folder is named after, USD."""


@dataclass(frozen=True, kw_only=True)
class Expense:
    """One part of a plan, in hours of one GPU or in pictures that somebody else makes."""

    part: str
    hours: float = 0.0
    """Of one GPU."""
    usd: float = 0.0
    note: str = ""


def expenses(plan: TablePlan, out: Path, gpu: Gpu) -> list[Expense]:
    """Of what is not there yet. A prompt set that is missing counts as what the plan asks of it; where that is all, a
    note says so."""
    found = [*_training(plan, out, gpu)]
    for row in plan.rows:
        for name in plan.sets:
            found += [*_pictures(plan, row, name, out, gpu)]
    return found


def judge_cost(plan: TablePlan) -> Cost | None:
    """Of all questions, none answered yet; None where no column has a judge or their prompts are not there."""
    columns = judged_columns(plan)
    missing = [need for column in columns for need in set_needs(plan, column.prompts)]
    return judging_cost(plan) if columns and not missing else None


def _training(plan: TablePlan, out: Path, gpu: Gpu) -> Iterator[Expense]:
    for name in adapters_of(plan):
        if not isinstance(plan.adapters[name], Made) or adapter_file(plan, name, out).is_file():
            continue
        recipe, part = recipe_of(plan, name, out), f"training {name}"
        try:
            hours, num = _hours_and_images(replace(recipe, data="data", out="out", guidance=1.0), gpu)
        except ValueError as error:
            yield Expense(part=part, note=str(error))
            continue
        note = f"{recipe.steps:,} steps, {num} of {recipe.batch_size} images at a time"
        yield Expense(part=part, hours=hours, note=note)


@lru_cache
def _hours_and_images(recipe: Recipe, gpu: Gpu) -> tuple[float, int]:
    """Of a training run as it fits, and how many images are on the GPU at a time; the adapters of a table differ in
    their data more than in what they take."""
    needed = planning.plan(recipe, gpu)
    taken = fitted(needed)
    hours = needed.hours | {"training": taken.seconds * recipe.steps / 3600}
    if not taken.recipe.sample_every:
        hours["samples"] = 0.0
    return sum(hours.values()), taken.recipe.images_at_a_time(1)


def _pictures(plan: TablePlan, row: TableRow, name: str, out: Path, gpu: Gpu) -> Iterator[Expense]:
    part = f"pictures of {row.name}, {name}"
    num = _num_missing(plan, row, name, out)
    if num is None:
        yield Expense(part=part, note=f"how many is not known without prompts.{name}")
    elif num and row.folder and plan.folders[row.folder] != TRUTH:
        usd = num * PRICES.get(row.folder, 0.0)
        yield Expense(part=part, usd=usd, note=f"{num} pictures, made elsewhere")
    elif num and not row.folder and plan.models[row.model]:
        yield _drawing(plan, row, num, part, gpu)


def _num_missing(plan: TablePlan, row: TableRow, name: str, out: Path) -> int | None:
    """Pictures that are not there, None where the prompts are not and all of them are asked for."""
    if any(set_needs(plan, name)):
        return plan.num_prompts or None
    there = row.folder and not Path(plan.folders[row.folder]).is_dir() and plan.folders[row.folder] != TRUTH
    if there or (row.adapter and not _is_adapter_known(plan, row.adapter)):
        return len(prompts_of(plan, name))
    return len(cell_of(plan, row, name, out).missing)


def _is_adapter_known(plan: TablePlan, name: str) -> bool:
    made = plan.adapters[name]
    return isinstance(made, Made) or Path(made).is_file()


def _drawing(plan: TablePlan, row: TableRow, num: int, part: str, gpu: Gpu) -> Expense:
    model, method = plan.models[row.model], method_of(plan, row)
    if row.model != "flux" or stock_of(model):
        return Expense(part=part, note=f"{num} pictures by {model}, whose time is not known here")
    steps = (plan.steps or method.steps) if method.steps else 0
    seconds = steps * planning.call_seconds(model, plan.size, gpu)
    if isinstance(method, TwoPass):
        seconds += method.native_steps * planning.call_seconds(model, NATIVE, gpu)
    note = f"{num:,} pictures of {steps} steps" if steps else f"{num:,} pictures, enlarged"
    return Expense(part=part, hours=num * seconds / 3600, note=note)

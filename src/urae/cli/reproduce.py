"""`urae reproduce`: a table of the paper, from its plan to numbers beside the paper's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from urae import execution, planning
from urae import reproduce as reproducing
from urae.cli.named import named
from urae.cli.options import Fields
from urae.cli.printed import say, say_report
from urae.cli.spending import Prices
from urae.io import check_can_write
from urae.reproduce.plan import PLANS

if TYPE_CHECKING:
    from urae.judge import Cost
    from urae.reproduce import Expense, TablePlan

__all__ = ["reproduce"]


def reproduce(
    table: Annotated[str, typer.Argument(help=f"{', '.join(PLANS)}, or a YAML file.")],
    prices: Annotated[dict[str, Any], Fields(Prices)],
    inputs: Annotated[
        list[str] | None,
        typer.Argument(help="What you have, as key=value, such as models.flux=FOLDER prompts.hpd=hpd.jsonl."),
    ] = None,
    miniature: Annotated[
        bool, typer.Option("--miniature", help="The same experiment on the miniature, which needs nothing.")
    ] = False,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick", help="The smallest run on the miniature that shows that all parts work together."
        ),
    ] = False,
    row: Annotated[list[str] | None, typer.Option(help="Only this row; repeat for several.")] = None,
    column: Annotated[list[str] | None, typer.Option(help="Only this column; repeat for several.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for everything.", show_default="out/TABLE")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show every cell and its state, hours and costs, and end there.")
    ] = False,
    gpu: Annotated[
        str,
        typer.Option(
            help=f"GPU whose hours --dry-run estimates: one of {', '.join(planning.GPUS)}.",
            show_default="this machine's, or the paper's H100",
        ),
    ] = "",
    price: Annotated[float, typer.Option(min=0, help="Price of one GPU for one hour, for --dry-run.")] = 0.0,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask a judge without confirmation.")] = False,
) -> str | dict[str, Any]:
    """Reproduce a table of the paper: train, draw and measure what is missing, and print it beside the paper's numbers.

    Stopped at any moment, the same command continues where it was.

    Example: urae reproduce table1 --miniature --dry-run
    """
    plan = reproducing.read_plan(table, _given(inputs or []), miniature=miniature, quick=quick)
    plan = plan.only(row or [], column or [])
    ending = "-quick" if quick else "-miniature" if miniature else ""
    folder, paid = out or Path("out") / f"{plan.name}{ending}", Prices(**prices)
    if dry_run:
        return _look(plan, folder, gpu, price, paid)
    if gpu or price:
        raise ValueError("--gpu and --price are only for --dry-run: give that too")
    check_can_write(folder, folder=True)
    result = reproducing.reproduce(
        plan, folder, on_cost=lambda cost, judge: _agree(cost, judge, paid, yes=yes), on_plan=say
    )
    say_report(result.to_markdown())
    for suffix in ("md", "json"):
        say(f"wrote {folder / f'{plan.name}.{suffix}'}")
    return result.to_json()


def _look(plan: TablePlan, folder: Path, gpu: str, price: float, prices: Prices) -> dict[str, Any]:
    """Every cell with its state, what is missing, and what the rest takes."""
    states, missing = reproducing.survey(plan, folder), reproducing.needs(plan, folder)
    for state in states:
        say(f"{state.part}: {state.name}: {state.state}")
    for one in missing:
        say(f"missing: {one}")
    expenses = _expenses(plan, folder, _gpu(gpu), price) if gpu or not plan.miniature else []
    if cost := reproducing.judge_cost(plan):
        _tell(cost, plan.judge.get("model", "judge.model"), prices)
    return {
        "cells": [asdict(state) for state in states],
        "missing": [str(one) for one in missing],
        "expenses": [asdict(one) for one in expenses],
        "judge": cost and asdict(cost),
    }


def _expenses(plan: TablePlan, folder: Path, gpu: planning.Gpu, price: float) -> list[Expense]:
    """What the rest takes on this GPU; it is told too."""
    found = reproducing.expenses(plan, folder, gpu)
    for one in found:
        numbers = [f"{one.hours:.1f} h"] * (one.hours > 0) + [f"{one.usd:,.2f} USD"] * (one.usd > 0)
        say(f"takes: {one.part}: {', '.join([*numbers, one.note])}")
    hours = sum(one.hours for one in found)
    paid = f", {hours * price:,.2f} at {price:g} a GPU hour" if price else ""
    say(f"in all: {hours:,.0f} hours of one {gpu.name}, estimated{paid}; pictures of others {_usd(found)}")
    return found


def _usd(found: Sequence[Expense]) -> str:
    return f"{sum(one.usd for one in found):,.2f} USD, where their price is known"


def _gpu(name: str) -> planning.Gpu:
    if name:
        return planning.gpu_named(name)
    device = execution.this_process().device
    return planning.gpu_here(device) if device.type == "cuda" else planning.gpu_named("H100")


def _agree(cost: Cost, judge: str, prices: Prices, *, yes: bool) -> None:
    _tell(cost, judge, prices)
    if not yes:
        typer.confirm("Ask them?", abort=True, err=True)


def _tell(cost: Cost, judge: str, prices: Prices) -> None:
    say(
        f"judge: {judge}, {cost.num_requests} questions, tokens, estimated: {cost.input_tokens} in, "
        f"{cost.output_tokens} out"
    )
    prices.tell(cost)


def _given(inputs: list[str]) -> dict[str, str]:
    return named(inputs, "input", value="VALUE, such as models.flux=FOLDER", read=str)

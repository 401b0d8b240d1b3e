"""The judge of a plan: who is asked, in which words, shown what, and what that will cost before there are pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from urae.judge.endpoint import OPTIONS, Endpoint
from urae.judge.instructions import Instructions, Kind, read_instructions
from urae.judge.pictures import View
from urae.judge.plan import Cost, JudgingPlan, estimated, plan_judging
from urae.reproduce.cells import CellPictures
from urae.reproduce.plan import OPTION, TableColumn, TablePlan
from urae.reproduce.prompts import prompts_of

__all__ = ["check_judge", "judged_columns", "judging_cost", "judging_plan"]

KINDS: tuple[Kind, ...] = ("score", "pair")


def judging_plan(
    plan: TablePlan, kind: Kind, columns: Sequence[TableColumn], pictures: dict[str, CellPictures]
) -> JudgingPlan:
    """What the judge is asked for these columns, of one kind, one prompt set and one row that is compared with."""
    return plan_judging(
        {name: cell.folder for name, cell in pictures.items()},
        next(iter(pictures.values())).texts,
        endpoint=_endpoint(plan),
        instructions=_instructions(plan),
        view=View(**_settings(plan, View)),
        aspects=[column.of for column in columns],
        kinds=(kind,),
        against=columns[0].against,
    )


def judging_cost(plan: TablePlan) -> Cost:
    """Of all columns, none of them answered yet; their prompts must be there, pictures need not."""
    instructions, view = _instructions(plan), View(**_settings(plan, View))
    costs = []
    for column in judged_columns(plan):
        shown = [1] * len(plan.rows) if column.kind == "score" else [2] * 2 * (len(plan.rows) - 1)
        for prompt in prompts_of(plan, column.prompts).values():
            text = instructions.text(_kind(column), column.of, prompt)
            costs += [(text, num * view.num_shown(column.of)) for num in shown]
    return estimated(costs)


def check_judge(plan: TablePlan) -> None:
    """`ValueError` where the judge has no words for what a column asks, before anything is computed."""
    for column in judged_columns(plan):
        if column.of not in _instructions(plan).texts[_kind(column)]:
            raise ValueError(
                f"judge.instructions is {plan.judge['instructions']}, which has no text for {column.kind} / "
                f"{column.of}: write one, or leave the column {column.name!r} out"
            )


def judged_columns(plan: TablePlan) -> list[TableColumn]:
    """Those that a judge answers."""
    return [column for column in plan.columns if column.kind in KINDS]


def _kind(column: TableColumn) -> Kind:
    return "pair" if column.kind == "pair" else "score"


def _endpoint(plan: TablePlan) -> Endpoint:
    own = {key.removeprefix(OPTION): value for key, value in plan.judge.items() if key.startswith(OPTION)}
    options = {key: value for key, value in {**OPTIONS, **own}.items() if value is not None}
    return Endpoint(**_settings(plan, Endpoint), options=options)


def _instructions(plan: TablePlan) -> Instructions:
    return read_instructions(Path(file) if (file := plan.judge.get("instructions")) else "")


def _settings(plan: TablePlan, of: type) -> dict[str, Any]:
    names = {one.name for one in fields(of)}
    return {name: value for name, value in plan.judge.items() if name in names}

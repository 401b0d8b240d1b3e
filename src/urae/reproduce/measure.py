"""The numbers of a plan's columns: metrics, DPG-Bench, the judge's scores and preferences, and people's votes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from urae.evaluation import plan_evaluation
from urae.evaluation.dpg import LocalModel, SceneModel, Server, dpg_bench, plan_dpg
from urae.evaluation.dpg.server import OPTIONS
from urae.evaluation.judge import Cost, Endpoint, judge, plan_judging, read_journal
from urae.evaluation.metrics import METRICS
from urae.evaluation.statistics import Interval
from urae.evaluation.study import count_votes, read_study
from urae.evaluation.table import Table
from urae.reproduce.cells import Cell
from urae.reproduce.plan import Column, Plan
from urae.reproduce.prompts import items_of

__all__ = ["Number", "measure"]

Cells = Mapping[tuple[str, str], Cell]
"""(row, prompt set) -> pictures."""


@dataclass(frozen=True, kw_only=True)
class Number:
    """A measured value, with its interval where there is one."""

    value: float
    low: float
    high: float
    digits: int
    untrained: bool = False


Numbers = dict[tuple[str, str], Number]
"""(row, column) -> number."""


def measure(
    plan: Plan, cells: Cells, out: Path, *, on_cost: Callable[[Cost, str], object]
) -> tuple[Numbers, list[str]]:
    """Every number that can be measured, and notes on what it rests on.

    `on_cost` is called, with the judge's name, before the judge is asked anything. Metrics that few pictures bias
    bring an unbiased one along, as a number of a column of its own name.
    """
    numbers: Numbers = {}
    notes: list[str] = []
    ways: dict[str, Callable[..., list[str]]] = {
        "metric": _metrics,
        "dpg": _dpg,
        "score": _scores,
        "pair": _pairs,
        "study": _study,
    }
    for group in _groups(plan.columns):
        notes += ways[group[0].kind](plan, group, cells, out, numbers, on_cost)
    return numbers, notes


def _groups(columns: Sequence[Column]) -> list[list[Column]]:
    """Columns that are measured together."""
    groups: dict[tuple[str, ...], list[Column]] = {}
    for column in columns:
        groups.setdefault((column.kind, column.prompts, column.against), []).append(column)
    return list(groups.values())


def _folders(plan: Plan, column: Column, cells: Cells) -> dict[str, Path]:
    return {row.name: cells[row.name, column.prompts].folder for row in plan.rows}


def _metrics(
    plan: Plan, group: Sequence[Column], cells: Cells, out: Path, numbers: Numbers, on_cost: Any
) -> list[str]:
    first = group[0]
    of_set = {row.name: cells[row.name, first.prompts] for row in plan.rows}
    against = {"reference": list(of_set.pop(first.against).files.values())} if first.against else {}
    read = {METRICS[column.of].weights for column in group}
    evaluation = plan_evaluation(
        {name: list(cell.files.values()) for name, cell in of_set.items()},
        next(iter(of_set.values())).texts,
        metrics=[column.of for column in group],
        against=against,
        weights={name: path for name, path in plan.weights.items() if METRICS[name].weights in read},
        seed=plan.seed,
    )
    table = evaluation.run(cache=out / "features")
    names = {column.of: column.name for column in group}
    for shown in table.columns:
        metric = shown.name.partition("@")[0]
        _take(table, shown.name, names.get(metric, metric), numbers)
    return [
        f"{shown.name.replace('@reference', f' against {first.against}')}: {shown.note}"
        for shown in table.columns
    ]


def _take(table: Table, shown: str, column: str, numbers: Numbers) -> None:
    described = next(one for one in table.columns if one.name == shown)
    for row, values in table.cells.items():
        cell = values[shown]
        numbers[row, column] = Number(
            value=cell.value,
            low=cell.low,
            high=cell.high,
            digits=described.digits,
            untrained=described.untrained,
        )


def _dpg(
    plan: Plan, group: Sequence[Column], cells: Cells, out: Path, numbers: Numbers, on_cost: Any
) -> list[str]:
    planned = plan_dpg(_folders(plan, group[0], cells), items_of(plan, group[0].prompts), _answerer(plan))
    result = dpg_bench(planned, journal=out / "dpg" / "answers.jsonl", seed=plan.seed)
    for column in group:
        _take(result.table, f"dpg[{result.model}]", column.name, numbers)
    return [f"DPG-Bench was answered by {result.model}; the paper does not say by what."]


def _answerer(plan: Plan) -> Any:
    model, server = plan.dpg["model"], plan.dpg.get("server", "")
    if server:
        return Server(endpoint=Endpoint(model=model, base_url=server, options=dict(OPTIONS), schema=False))
    return SceneModel() if model == "mini" else LocalModel(Path(model))


def _scores(
    plan: Plan, group: Sequence[Column], cells: Cells, out: Path, numbers: Numbers, on_cost: Any
) -> list[str]:
    verdicts = _judged(plan, group, cells, out, on_cost, kind="score", against="")
    for column in group:
        if verdicts.scores and column.of in {shown.name for shown in verdicts.scores.columns}:
            _take(verdicts.scores, column.of, column.name, numbers)
    return [f"The judge is {verdicts.model}, asked in words of our own to the criteria of Appendix C.1."]


def _pairs(
    plan: Plan, group: Sequence[Column], cells: Cells, out: Path, numbers: Numbers, on_cost: Any
) -> list[str]:
    verdicts = _judged(plan, group, cells, out, on_cost, kind="pair", against=group[0].against)
    names = {column.of: column.name for column in group}
    for preference in verdicts.preferences:
        if preference.rate:
            numbers[preference.candidate, names[preference.aspect]] = _turned(preference.rate)
    return [
        f"The judge is {verdicts.model}, asked in both orders. A number is the share of prompts on which "
        f"{group[0].against} is preferred to the row, a tie being half, in percent."
    ]


def _judged(
    plan: Plan, group: Sequence[Column], cells: Cells, out: Path, on_cost: Any, *, kind: Any, against: str
) -> Any:
    settings = {key: value for key, value in plan.judge.items() if value}
    planned = plan_judging(
        _folders(plan, group[0], cells),
        cells[plan.rows[0].name, group[0].prompts].texts,
        endpoint=Endpoint(**settings),  # type: ignore[arg-type]
        aspects=[column.of for column in group],
        kinds=(kind,),
        against=against,
    )
    journal = out / "judge" / "answers.jsonl"
    cost = planned.cost(read_journal(journal))
    if cost.num_requests:
        on_cost(cost, planned.endpoint.model)
    return judge(planned, journal=journal, seed=plan.seed)


def _turned(rate: Interval) -> Number:
    """The other side's share, in percent."""
    return Number(
        value=100 * (1 - rate.value), low=100 * (1 - rate.high), high=100 * (1 - rate.low), digits=1
    )


def _study(
    plan: Plan, group: Sequence[Column], cells: Cells, out: Path, numbers: Numbers, on_cost: Any
) -> list[str]:
    if not plan.study.get("folder"):
        names = " ".join(f"--candidate '{row.name}=FOLDER'" for row in plan.rows)
        return [f"User study: needs people. Run urae study build {names}, then give study.folder=FOLDER."]
    outcome = count_votes(read_study(plan.study["folder"]), seed=plan.seed)
    for column in group:
        for row, standing in outcome.aspects[column.of].standings.items():
            share, interval = 100 * standing.share, standing.interval
            low, high = (100 * interval.low, 100 * interval.high) if interval else (share, share)
            numbers[row, column.name] = Number(value=share, low=low, high=high, digits=2)
    votes = sum(aspect.num_votes for aspect in outcome.aspects.values())
    return [f"User study: {votes} votes of {len(outcome.raters)} raters; the paper has 1,020 votes."]

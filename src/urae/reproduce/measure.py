"""The numbers of a plan's columns: metrics, DPG-Bench, the judge's scores and preferences, and people's votes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from urae.dpg.answerer import Answerer
from urae.dpg.benchmark import dpg_bench, plan_dpg
from urae.dpg.model import LocalModel
from urae.dpg.scenes import SceneModel
from urae.dpg.server import OPTIONS, ServerModel
from urae.judge.ask import judge
from urae.judge.endpoint import Endpoint
from urae.judge.journal import read_answers
from urae.judge.plan import Cost
from urae.metrics import METRICS, plan_evaluation
from urae.reproduce.cells import CellPictures
from urae.reproduce.judging import judging_plan
from urae.reproduce.plan import TableColumn, TablePlan
from urae.reproduce.prompts import items_of
from urae.statistics import Interval, Table
from urae.study.manifest import read_study
from urae.study.outcome import count_votes

__all__ = ["Number", "measure"]

Cells = Mapping[tuple[str, str], CellPictures]
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


@dataclass(frozen=True, kw_only=True)
class Job:
    """Columns that are measured together: of one kind, on one prompt set, against one row."""

    plan: TablePlan
    columns: Sequence[TableColumn]
    cells: Cells
    out: Path
    on_cost: Callable[[Cost, str], object]

    @property
    def of_row(self) -> dict[str, CellPictures]:
        """The pictures of each row."""
        return {row.name: self.cells[row.name, self.columns[0].prompts] for row in self.plan.rows}

    @property
    def folders(self) -> dict[str, Path]:
        return {name: cell.folder for name, cell in self.of_row.items()}

    @property
    def names(self) -> dict[str, str]:
        """Metric or aspect -> column."""
        return {column.of: column.name for column in self.columns}


OWN_WORDS = "words of our own to the criteria of Appendix C.1"
Measured = tuple[Numbers, list[str]]
"""Numbers, and notes on what they rest on."""


def measure(
    plan: TablePlan, cells: Cells, out: Path, *, on_cost: Callable[[Cost, str], object]
) -> tuple[Numbers, list[str]]:
    """Every number that can be measured, and notes on what it rests on.

    `on_cost` is called, with the judge's name, before the judge is asked anything. Metrics that few pictures bias
    bring an unbiased one along, as a number of a column of its own name.
    """
    numbers: Numbers = {}
    notes: list[str] = []
    groups: dict[tuple[str, ...], list[TableColumn]] = {}
    for column in plan.columns:
        groups.setdefault((column.kind, column.prompts, column.against), []).append(column)
    for columns in groups.values():
        job = Job(plan=plan, columns=columns, cells=cells, out=out, on_cost=on_cost)
        found, told = WAYS[columns[0].kind](job)
        numbers |= found
        notes += told
    return numbers, notes


def _metrics(job: Job) -> Measured:
    plan, pictures, row = job.plan, job.of_row, job.columns[0].against
    against = {"reference": list(pictures.pop(row).files.values())} if row else {}
    read = {METRICS[metric].weights for metric in job.names}
    evaluation = plan_evaluation(
        {name: list(cell.files.values()) for name, cell in pictures.items()},
        next(iter(pictures.values())).texts,
        metrics=list(job.names),
        against=against,
        weights={name: path for name, path in plan.weights.items() if METRICS[name].weights in read},
        seed=plan.seed,
    )
    table = evaluation.run(cache=job.out / "features")
    numbers: Numbers = {}
    for column in table.columns:
        metric = column.name.partition("@")[0]
        numbers |= _taken(table, column.name, job.names.get(metric, metric))
    return numbers, [
        f"{column.name.replace('@reference', f' against {row}')}: {column.note}" for column in table.columns
    ]


def _dpg(job: Job) -> Measured:
    planned = plan_dpg(job.folders, items_of(job.plan, job.columns[0].prompts), _answerer(job.plan))
    result = dpg_bench(planned, journal=job.out / "dpg" / "answers.jsonl", seed=job.plan.seed)
    numbers: Numbers = {}
    for column in job.columns:
        numbers |= _taken(result.table, f"dpg[{result.model}]", column.name)
    unread = _said(sum(result.unread.values()), "answers could not be read, and count as no")
    return numbers, [f"DPG-Bench was answered by {result.model}; the paper does not say by what.{unread}"]


def _answerer(plan: TablePlan) -> Answerer:
    model, server = plan.dpg["model"], plan.dpg.get("server", "")
    if server:
        return ServerModel(
            endpoint=Endpoint(model=model, base_url=server, options=dict(OPTIONS), schema=False)
        )
    return SceneModel() if model == "mini" else LocalModel(Path(model))


def _scores(job: Job) -> Measured:
    verdicts = _judged(job, "score")
    numbers: Numbers = {}
    for shown in verdicts.scores.columns if verdicts.scores else ():
        numbers |= _taken(verdicts.scores, shown.name, job.names[shown.name])
    counts = (count for row in verdicts.invalid_scores.values() for count in row.values())
    unread = _said(sum(counts), "scores could not be read; their prompts are left out")
    words = f"the words of {file}" if (file := job.plan.judge.get("instructions")) else OWN_WORDS
    return numbers, [f"The judge is {verdicts.model}, asked in {words}.{unread}"]


def _pairs(job: Job) -> Measured:
    verdicts = _judged(job, "pair")
    numbers = {
        (preference.candidate, job.names[preference.aspect]): _turned(preference.rate)
        for preference in verdicts.preferences
        if preference.rate
    }
    counts = (preference.invalid for preference in verdicts.preferences)
    unread = _said(sum(counts), "pairs have an answer that could not be read, and are left out")
    return numbers, [
        f"The judge is {verdicts.model}, asked in both orders. A number is the share of prompts on which "
        f"{job.columns[0].against} is preferred to the row, a tie being half, in percent.{unread}"
    ]


def _said(count: int, what: str) -> str:
    return f" {count} {what}." if count else ""


def _judged(job: Job, kind: Literal["score", "pair"]) -> Any:
    planned = judging_plan(job.plan, kind, job.columns, job.of_row)
    journal = job.out / "judge" / "answers.jsonl"
    cost = planned.cost(read_answers(journal))
    if cost.num_requests:
        job.on_cost(cost, planned.endpoint.model)
    return judge(planned, journal=journal, seed=job.plan.seed)


def _turned(rate: Interval) -> Number:
    """The other side's share, in percent."""
    return Number(
        value=100 * (1 - rate.value), low=100 * (1 - rate.high), high=100 * (1 - rate.low), digits=1
    )


def _study(job: Job) -> Measured:
    if not job.plan.study.get("folder"):
        names = " ".join(f"--candidate '{row.name}=FOLDER'" for row in job.plan.rows)
        return {}, [f"User study: needs people. Run urae study build {names}, then give study.folder=FOLDER."]
    outcome = count_votes(read_study(job.plan.study["folder"]), seed=job.plan.seed)
    numbers = {
        (row, job.names[aspect]): _share(standing.share, standing.interval)
        for aspect, found in outcome.aspects.items()
        for row, standing in found.standings.items()
        if aspect in job.names
    }
    votes = sum(found.num_votes for found in outcome.aspects.values())
    return numbers, [f"User study: {votes} votes of {len(outcome.raters)} raters; the paper has 1,020 votes."]


def _share(share: float, interval: Interval | None) -> Number:
    low, high = (interval.low, interval.high) if interval else (share, share)
    return Number(value=100 * share, low=100 * low, high=100 * high, digits=2)


def _taken(table: Table, shown: str, column: str) -> Numbers:
    """A column of another table."""
    (described,) = (one for one in table.columns if one.name == shown)
    return {
        (row, column): Number(
            value=values[shown].value,
            low=values[shown].low,
            high=values[shown].high,
            digits=described.digits,
            untrained=described.untrained,
        )
        for row, values in table.cells.items()
    }


WAYS: dict[str, Callable[[Job], Measured]] = {
    "metric": _metrics,
    "dpg": _dpg,
    "score": _scores,
    "pair": _pairs,
    "study": _study,
}
"""By the kind of a column."""

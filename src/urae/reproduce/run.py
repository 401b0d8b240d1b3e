"""Running a plan: train, draw and measure what is missing, in that order; stopped at any moment, it goes on."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from urae.baselines import open_stock, stock_of
from urae.errors import UraeError
from urae.execution import this_process
from urae.families import open_pipeline
from urae.io import write_text
from urae.judge.plan import Cost
from urae.planning import gpu_here
from urae.reproduce.cells import CellPictures, cell_of, draw_cell
from urae.reproduce.judging import check_judge
from urae.reproduce.measure import measure
from urae.reproduce.missing import adapter_needs, column_needs, needs, row_needs, set_needs
from urae.reproduce.plan import TablePlan, TableRow
from urae.reproduce.report import Reproduction
from urae.reproduce.training import adapter_file, adapters_of, train_adapter

__all__ = ["MissingInputs", "State", "reproduce", "survey"]


class MissingInputs(UraeError):
    """What a plan needs is not on this machine."""


@dataclass(frozen=True, kw_only=True)
class State:
    """How far one part of a plan is."""

    part: str
    """adapter, pictures or column."""
    name: str
    state: str


def survey(plan: TablePlan, out: Path | str) -> list[State]:
    """Every cell and its state, without computing anything; `needs` says of each missing key what it is."""
    out = Path(out)
    found = [
        State(
            part="adapter",
            name=name,
            state=_lacks(adapter_needs(plan, name)) or _adapter_state(plan, name, out),
        )
        for name in adapters_of(plan)
    ]
    for row, name in itertools.product(plan.rows, plan.sets):
        lacks = _lacks([*set_needs(plan, name), *row_needs(plan, row)])
        state = lacks or _picture_state(plan, row, name, out)
        found.append(State(part="pictures", name=f"{row.name}, {name}", state=state))
    for column in plan.columns:
        state = _lacks(column_needs(plan, column)) or f"{column.kind} {column.of}".strip()
        found.append(State(part="column", name=column.name, state=state))
    return found


def reproduce(
    plan: TablePlan,
    out: Path | str,
    *,
    on_cost: Callable[[Cost, str], object] = lambda cost, judge: None,
    on_plan: Callable[[str], object] = lambda told: None,
) -> Reproduction:
    """Run a plan in the folder `out`, and write the table there as Markdown and JSON.

    `on_cost` is called with what a judge will cost, and its name, before it is asked; `on_plan` with how an adapter is
    made to fit on this GPU. `MissingInputs` names everything that is not there, before anything is computed.
    """
    out = Path(out)
    if missing := needs(plan, out):
        raise MissingInputs(
            f"{plan.name} needs {'; '.join(missing)}. Give each as key=value, or leave its rows and columns out with "
            "--row and --column"
        )
    check_judge(plan)
    open_model, device = _Opener(), this_process().device
    gpu = gpu_here(device) if device.type == "cuda" else None
    for name in adapters_of(plan):
        if not adapter_file(plan, name, out).is_file():
            train_adapter(plan, name, out, open_model, gpu=gpu, on_plan=on_plan)
    cells = _cells(plan, out)
    for cell in sorted(cells.values(), key=lambda cell: cell.row.model):
        draw_cell(plan, cell, out, open_model)
    open_model.close()
    numbers, notes = measure(plan, cells, out, on_cost=on_cost)
    counts = {cell.prompts: len(cell.texts) for cell in cells.values()}
    result = Reproduction(plan=plan, numbers=numbers, notes=notes, counts=counts)
    write_text(out / f"{plan.name}.md", result.to_markdown())
    write_text(out / f"{plan.name}.json", result.to_json())
    return result


class _Opener:
    """Opens a model; the last one stays open, for there is room for one."""

    def __init__(self) -> None:
        self.name, self.dtype, self.pipe = "", "", None

    def __call__(self, name: str, dtype: str) -> Any:
        if (name, dtype) != (self.name, self.dtype):
            self.close()
            self.pipe = _opened(name, dtype)
            self.name, self.dtype = name, dtype
        return self.pipe

    def close(self) -> None:
        self.name, self.pipe = "", None


def _opened(name: str, dtype: str) -> Any:
    if stock_of(name):
        return open_stock(name, dtype=torch.bfloat16 if torch.cuda.is_available() else torch.float32)
    return open_pipeline(name, dtype=dtype)


def _adapter_state(plan: TablePlan, name: str, out: Path) -> str:
    file = adapter_file(plan, name, out)
    if file.is_file():
        return f"there, {file}"
    return "begun" if (file.parent / "checkpoints").is_dir() else "to be trained"


def _picture_state(plan: TablePlan, row: TableRow, name: str, out: Path) -> str:
    cell = cell_of(plan, row, name, out)
    return f"{len(cell.texts) - len(cell.missing)} of {len(cell.texts)}"


def _lacks(needed: Iterable[str]) -> str:
    """The keys of what is missing; empty where that is nothing."""
    missing = ", ".join(dict.fromkeys(need.partition(" (")[0] for need in needed))
    return f"needs {missing}" if missing else ""


def _cells(plan: TablePlan, out: Path) -> dict[tuple[str, str], CellPictures]:
    return {(row.name, name): cell_of(plan, row, name, out) for row in plan.rows for name in plan.sets}

"""A table of candidates and metrics, whose marks mean something.

The best candidate of a column is marked only if it is really better than every other one, the second only if the
best is marked and it is really better than all below it; "really" is `Comparison.real` with Holm's correction over
every pair of the column, since which one leads is known only after looking. A number of a whole set, such as FID,
has no pairs and is never marked. One table prints as Markdown, JSON, and a page that holds the pictures.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from urae.io import Markdown, escape_markdown, markdown_table, read_picture, write_text
from urae.pages import data_uri, html_page, thumbnail
from urae.statistics.intervals import (
    CONFIDENCE,
    Bounds,
    Comparison,
    Interval,
    adjusted,
    compare,
    least_prompts,
    mean,
)

__all__ = ["ABSENT", "ARROWS", "UNTRAINED", "Cell", "Column", "Table", "Values", "tabulate"]

UNTRAINED = "untrained weights: plumbing check only"
ABSENT = "–"
ARROWS = {"higher": "↑", "lower": "↓", "neither": ""}
SIDE = 384
"""Of the pictures on the page, px."""
Direction = Literal["higher", "lower", "neither"]
Values = Mapping[str, float] | Interval | float
"""Prompt -> value, or one number of the whole set, with its interval if there is one."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """A metric: its name, and how to read it."""

    name: str
    direction: Direction
    """Which is better; a column of direction "neither" is never marked."""
    digits: int = 3
    """Decimals shown."""
    bounds: Bounds | None = None
    """Of a share: the least and the greatest value, by which there is an interval where all prompts agree."""
    note: str = ""
    """What stands below the table: the variant, what it sees of the picture, its weights."""
    untrained: bool = False
    """Computed with random weights: a sentence is shown in place of the number."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """What the numbers depend on, such as hashes and versions, JSON types; kept in the JSON file alone."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A candidate's value of one metric."""

    value: float
    low: float
    """Interval; equal to `value` for a number of the whole set that has none."""
    high: float
    num_prompts: int
    """0 for a number of the whole set."""
    mark: Literal["", "best", "second"] = ""
    scores: Mapping[str, float] = field(default_factory=dict)
    """Prompt -> value, empty for a number of the whole set."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows are candidates; `cells[candidate][metric]` is absent where a candidate has no such number."""

    columns: tuple[Column, ...]
    cells: Mapping[str, Mapping[str, Cell]]
    comparisons: Mapping[str, Mapping[str, Comparison]]
    """Metric -> "a against b" -> paired comparison, corrected over the column."""
    title: str = ""

    def to_markdown(self) -> str:
        """Best in bold, second in italics."""
        header = ["", *(f"{column.name} {ARROWS[column.direction]}".strip() for column in self.columns)]
        rows = [[name, *(self._shown(name, column) for column in self.columns)] for name in self.cells]
        table = markdown_table(header, rows, right=range(1, len(header)))
        return "\n\n".join([table, *map(escape_markdown, self._notes())]) + "\n"

    def to_json(self) -> str:
        """All of it: columns, values, intervals, the value of each prompt, and every comparison."""
        described = {
            "title": self.title,
            "columns": [asdict(column) for column in self.columns],
            "cells": {
                name: {metric: asdict(cell) for metric, cell in row.items()}
                for name, row in self.cells.items()
            },
            "comparisons": {
                metric: {pair: {**asdict(result), "real": result.real} for pair, result in results.items()}
                for metric, results in self.comparisons.items()
            },
        }
        return json.dumps(described, indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    def to_html(self, pictures: Mapping[str, Mapping[str, Path]]) -> str:
        """One page without outside parts: each number leads to the pictures behind it, worst first.

        `pictures`: candidate -> prompt -> file, for every prompt of the table. They are shown reduced to 384 px and
        re-encoded as JPEG, each held once.
        """
        _all_there(self.cells, pictures)
        every = (cell.scores for row in self.cells.values() for cell in row.values())
        prompts = {
            prompt: f"prompt-{i}"
            for i, prompt in enumerate(dict.fromkeys(itertools.chain.from_iterable(every)))
        }
        classes = {
            name: {
                prompt: f"picture-{row}-{place}"
                for prompt, place in prompts.items()
                if prompt in pictures[name]
            }
            for row, name in enumerate(self.cells)
            if name in pictures
        }
        return html_page(
            "urae.statistics",
            "table.html.j2",
            table=self,
            prompts=prompts,
            classes=classes,
            embedded={
                css: data_uri(thumbnail(read_picture(pictures[name][prompt]), SIDE), quality=88)
                for name, row in classes.items()
                for prompt, css in row.items()
            },
            side=SIDE,
            arrows=ARROWS,
            absent=ABSENT,
            untrained=UNTRAINED,
            notes=self._notes(),
            interval=_interval,
            number=_number,
        )

    def save(self, path: Path | str, *, pictures: Mapping[str, Mapping[str, Path]] | None = None) -> Path:
        """Write `path` by its suffix: .md, .json or .html (which needs `pictures`)."""
        path = Path(path)
        kinds = {".md": self.to_markdown, ".json": self.to_json}
        if path.suffix == ".html" and pictures is not None:
            text = self.to_html(pictures)
        elif path.suffix in kinds and pictures is None:
            text = kinds[path.suffix]()
        else:
            raise ValueError(
                f"a table cannot be saved as {path.name} {'with' if pictures is not None else 'without'} pictures: "
                "expected .md or .json without, or .html with them"
            )
        write_text(path, text)
        return path

    def _shown(self, name: str, column: Column) -> str:
        cell = self.cells[name].get(column.name)
        if cell is None or column.untrained:
            return UNTRAINED if cell else ABSENT
        wrap = {"best": "**", "second": "*", "": ""}[cell.mark]
        return Markdown(f"{wrap}{_number(cell.value, column)}{wrap} {_interval(cell, column)}")

    def _notes(self) -> list[str]:
        cells = [cell for row in self.cells.values() for cell in row.values() if cell.num_prompts]
        counts = sorted({cell.num_prompts for cell in cells})
        notes = [f"{column.name}: {_line(column.note)}" for column in self.columns if column.note]
        if counts:
            shown = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
            notes.append(f"Means over {shown} prompts, with bootstrap intervals by prompt.")
        if any(self.comparisons.values()):
            level = f"{1 - CONFIDENCE:.0%}"
            notes.append(
                "Best and second best are marked only where significantly better "
                f"(sign test with Holm's correction, {level})."
            )
            notes += _markless(len(self.cells), counts[0])
        return [_line(note) for note in notes]


def tabulate(
    scores: Mapping[str, Mapping[str, Values]],
    *,
    columns: Sequence[Column],
    title: str = "",
    seed: int = 0,
) -> Table:
    """Table of `scores`: candidate -> metric -> prompt -> value, or one number of the whole set.

    All candidates of a column must have the same prompts, at least six, and finite values. A candidate without a
    metric has an empty cell. `ValueError` names what does not fit.
    """
    _known(scores, columns)
    cells: dict[str, dict[str, Cell]] = {name: {} for name in scores}
    comparisons: dict[str, dict[str, Comparison]] = {}
    for column in columns:
        values = {name: row[column.name] for name, row in scores.items() if column.name in row}
        paired = {name: value for name, value in values.items() if isinstance(value, Mapping)}
        comparisons[column.name] = _pairs(paired, column.bounds, seed)
        marks = _marks(paired, comparisons[column.name], column)
        for name, value in values.items():
            cells[name][column.name] = _cell(value, column.bounds, marks.get(name, ""), seed)
    return Table(columns=tuple(columns), cells=cells, comparisons=comparisons, title=title)


def _cell(value: Values, bounds: Bounds | None, mark: Literal["", "best", "second"], seed: int) -> Cell:
    if isinstance(value, Mapping):
        interval = mean(value, bounds=bounds, seed=seed)
        return Cell(
            value=interval.value,
            low=interval.low,
            high=interval.high,
            num_prompts=interval.count,
            mark=mark,
            scores=dict(value),
        )
    numbers = (value.value, value.low, value.high) if isinstance(value, Interval) else (value, value, value)
    if not all(map(math.isfinite, numbers)):
        raise ValueError(f"a number of the table is {value}: expected a finite one")
    return Cell(value=numbers[0], low=numbers[1], high=numbers[2], num_prompts=0)


def _pairs(
    values: Mapping[str, Mapping[str, float]], bounds: Bounds | None, seed: int
) -> dict[str, Comparison]:
    results = {
        _against(a, b): compare(values[a], values[b], bounds=bounds, seed=seed)
        for a, b in itertools.combinations(values, 2)
    }
    return adjusted(results)


def _markless(num_candidates: int, num_prompts: int) -> list[str]:
    """Where prompts are too few for any mark, that they are."""
    least = least_prompts(num_candidates * (num_candidates - 1) // 2)
    if num_prompts >= least:
        return []
    return [
        f"With {num_candidates} candidates and {num_prompts} prompts nothing can be marked, however large the "
        f"difference: it takes at least {least} prompts."
    ]


def _marks(
    values: Mapping[str, Mapping[str, float]], comparisons: Mapping[str, Comparison], column: Column
) -> dict[str, Literal["best", "second"]]:
    if column.direction == "neither" or column.untrained:
        return {}
    sign = 1 if column.direction == "higher" else -1
    order = sorted(values, key=lambda name: -sign * sum(values[name].values()))
    clear = [
        all(_really(sign, name, other, comparisons) for other in order[i + 1 :])
        for i, name in enumerate(order)
    ]
    marks: dict[str, Literal["best", "second"]] = {}
    if len(order) > 1 and clear[0]:
        marks[order[0]] = "best"
        if len(order) > 2 and clear[1]:
            marks[order[1]] = "second"
    return marks


def _really(sign: int, better: str, worse: str, comparisons: Mapping[str, Comparison]) -> bool:
    forth, back = comparisons.get(_against(better, worse)), comparisons.get(_against(worse, better))
    if forth:
        return forth.real and sign * forth.difference.value > 0
    assert back
    return back.real and sign * back.difference.value < 0


def _against(a: str, b: str) -> str:
    return f"{a} against {b}"


def _known(scores: Mapping[str, Mapping[str, Values]], columns: Sequence[Column]) -> None:
    names = [column.name for column in columns]
    if len(set(names)) < len(names):
        raise ValueError(f"columns are {names}: expected each metric once")
    for name, row in scores.items():
        if unknown := sorted(row.keys() - set(names)):
            raise ValueError(
                f"{name} has the metric {unknown[0]!r} without a column: expected {', '.join(names)}"
            )


def _all_there(cells: Mapping[str, Mapping[str, Cell]], pictures: Mapping[str, Mapping[str, Path]]) -> None:
    for name, row in cells.items():
        for prompt in itertools.chain.from_iterable(cell.scores for cell in row.values()):
            if prompt not in pictures.get(name, {}):
                raise ValueError(f"{name} has no picture of {prompt!r}: expected one behind every number")


def _interval(cell: Cell, column: Column) -> str:
    """Empty where there is none: for a number of the whole set without one, and where all prompts agree."""
    if cell.low == cell.high:
        return ""
    return f"[{_number(cell.low, column)}, {_number(cell.high, column)}]"


def _number(value: float, column: Column) -> str:
    return f"{value:z.{column.digits}f}"


def _line(text: str) -> str:
    return " ".join(text.split())

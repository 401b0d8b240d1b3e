"""A table of candidates and metrics, whose marks mean something.

The best candidate of a column is marked only if it is really better than every other one, the second only if the
best is marked and it is really better than all below it; "really" is `Comparison.real` with Holm's correction over
every pair of the column, since which one leads is known only after looking. A number of a whole set, such as FID,
has no pairs and is never marked. One table prints as Markdown, LaTeX, JSON, and a page that holds the pictures.
"""

from __future__ import annotations

import base64
import io
import itertools
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from urae.statistics.intervals import Comparison, Interval, adjusted, compare, mean

__all__ = ["UNTRAINED", "Cell", "Column", "Table", "escape_markdown", "tabulate"]

UNTRAINED = "untrained weights: plumbing check only"
ABSENT = "–"
ARROWS = {"higher": "↑", "lower": "↓", "neither": ""}
Direction = Literal["higher", "lower", "neither"]
Scores = Mapping[str, float] | Interval | float
"""Prompt -> value, or one number of the whole set, with its interval if there is one."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """A metric: its name, and how to read it."""

    name: str
    direction: Direction
    """Which is better; a column of direction "neither" is never marked."""
    digits: int = 3
    """Decimals shown."""
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
        header = [
            "",
            *(
                f"{escape_markdown(column.name)} {ARROWS[column.direction]}".strip()
                for column in self.columns
            ),
        ]
        lines = [_pipes(header), _pipes(["---", *["---:" for _ in self.columns]])]
        for name in self.cells:
            lines.append(
                _pipes([escape_markdown(name), *(self._shown(name, column) for column in self.columns)])
            )
        return "\n\n".join(["\n".join(lines), *map(escape_markdown, self._notes())]) + "\n"

    def to_latex(self) -> str:
        """A tabular for the package booktabs; best in bold, second underlined."""
        arrows = {"higher": r" $\uparrow$", "lower": r" $\downarrow$", "neither": ""}
        header = ["Method", *(_latex(column.name) + arrows[column.direction] for column in self.columns)]
        lines = [rf"\begin{{tabular}}{{l{'r' * len(self.columns)}}}", r"\toprule", _row(header), r"\midrule"]
        for name in self.cells:
            lines.append(_row([_latex(name), *(self._typeset(name, column) for column in self.columns)]))
        notes = [f"% {note}" for note in self._notes()]
        return "\n".join([*notes, *lines, r"\bottomrule", r"\end{tabular}"]) + "\n"

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

    def to_html(self, pictures: Mapping[str, Mapping[str, Path]], *, side: int = 384) -> str:
        """One page without outside parts: each number leads to the pictures behind it, worst first.

        `pictures`: candidate -> prompt -> file, for every prompt of the table. They are shown reduced to `side` px
        and re-encoded as JPEG, each held once.
        """
        _all_there(self.cells, pictures)
        prompts = {prompt: f"prompt-{i}" for i, prompt in enumerate(_prompts(self.cells))}
        classes = {
            name: {
                prompt: f"picture-{row}-{place}"
                for prompt, place in prompts.items()
                if prompt in pictures[name]
            }
            for row, name in enumerate(self.cells)
            if name in pictures
        }
        environment = Environment(
            loader=PackageLoader("urae.statistics"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
        )
        return environment.get_template("table.html.j2").render(
            table=self,
            prompts=prompts,
            classes=classes,
            embedded={
                css: _data_uri(pictures[name][prompt], side)
                for name, row in classes.items()
                for prompt, css in row.items()
            },
            side=side,
            arrows=ARROWS,
            absent=ABSENT,
            untrained=UNTRAINED,
            notes=self._notes(),
            interval=_interval,
        )

    def save(self, path: Path | str, *, pictures: Mapping[str, Mapping[str, Path]] | None = None) -> Path:
        """Write `path` by its suffix: .md, .tex, .json or .html (which needs `pictures`)."""
        path = Path(path)
        kinds = {".md": self.to_markdown, ".tex": self.to_latex, ".json": self.to_json}
        if path.suffix == ".html" and pictures is not None:
            text = self.to_html(pictures)
        elif path.suffix in kinds and pictures is None:
            text = kinds[path.suffix]()
        else:
            raise ValueError(
                f"a table cannot be saved as {path.name} {'with' if pictures is not None else 'without'} pictures: "
                "expected .md, .tex or .json without, or .html with them"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(path.name + ".tmp")
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
        return path

    def _shown(self, name: str, column: Column) -> str:
        cell = self.cells[name].get(column.name)
        if cell is None or column.untrained:
            return UNTRAINED if cell else ABSENT
        wrap = {"best": "**", "second": "*", "": ""}[cell.mark]
        return " ".join(
            filter(None, [f"{wrap}{cell.value:.{column.digits}f}{wrap}", _interval(cell, column)])
        )

    def _typeset(self, name: str, column: Column) -> str:
        cell = self.cells[name].get(column.name)
        if cell is None or column.untrained:
            return rf"\emph{{{UNTRAINED}}}" if cell else "--"
        number = f"${cell.value:.{column.digits}f}$"
        wrapped = {
            "best": rf"\textbf{{\boldmath {number}}}",
            "second": rf"\underline{{{number}}}",
            "": number,
        }
        interval = _interval(cell, column)
        return wrapped[cell.mark] + (rf" {{\scriptsize ${interval}$}}" if interval else "")

    def _notes(self) -> list[str]:
        cells = [cell for row in self.cells.values() for cell in row.values() if cell.num_prompts]
        confidences = {
            c.difference.confidence for results in self.comparisons.values() for c in results.values()
        }
        counts = sorted({cell.num_prompts for cell in cells})
        notes = [f"{column.name}: {_line(column.note)}" for column in self.columns if column.note]
        if counts:
            shown = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
            notes.append(f"Means over {shown} prompts, with bootstrap intervals by prompt.")
        if confidences:
            level = f"{1 - max(confidences):.0%}"
            notes.append(
                f"Best and second best are marked only where really better (sign test with Holm's correction, {level})."
            )
        return [_line(note) for note in notes]


def tabulate(
    scores: Mapping[str, Mapping[str, Scores]],
    *,
    columns: Sequence[Column],
    title: str = "",
    confidence: float = 0.95,
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
        comparisons[column.name] = _pairs(paired, confidence, seed)
        marks = _marks(paired, comparisons[column.name], column)
        for name, value in values.items():
            cells[name][column.name] = _cell(value, marks.get(name, ""), confidence, seed)
    return Table(columns=tuple(columns), cells=cells, comparisons=comparisons, title=title)


def _cell(value: Scores, mark: Literal["", "best", "second"], confidence: float, seed: int) -> Cell:
    if isinstance(value, Mapping):
        interval = mean(value, confidence=confidence, seed=seed)
        return Cell(
            value=interval.value,
            low=interval.low,
            high=interval.high,
            num_prompts=interval.count,
            mark=mark,
            scores=dict(value),
        )
    if isinstance(value, Interval):
        cell = Cell(value=value.value, low=value.low, high=value.high, num_prompts=0)
    else:
        cell = Cell(value=value, low=value, high=value, num_prompts=0)
    if not all(abs(number) < float("inf") for number in (cell.value, cell.low, cell.high)):
        raise ValueError(f"a number of the table is {value}: expected a finite one")
    return cell


def _pairs(values: Mapping[str, Mapping[str, float]], confidence: float, seed: int) -> dict[str, Comparison]:
    results = {
        _against(a, b): compare(values[a], values[b], confidence=confidence, seed=seed)
        for a, b in itertools.combinations(values, 2)
    }
    return adjusted(results)


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


def _known(scores: Mapping[str, Mapping[str, Scores]], columns: Sequence[Column]) -> None:
    names = [column.name for column in columns]
    if len(set(names)) < len(names):
        raise ValueError(f"columns are {names}: expected each metric once")
    for name, row in scores.items():
        if unknown := sorted(row.keys() - set(names)):
            raise ValueError(
                f"{name} has the metric {unknown[0]!r} without a column: expected {', '.join(names)}"
            )


def _prompts(cells: Mapping[str, Mapping[str, Cell]]) -> list[str]:
    every = (cell.scores for row in cells.values() for cell in row.values())
    return list(dict.fromkeys(itertools.chain.from_iterable(every)))


def _all_there(cells: Mapping[str, Mapping[str, Cell]], pictures: Mapping[str, Mapping[str, Path]]) -> None:
    for name, row in cells.items():
        for prompt in itertools.chain.from_iterable(cell.scores for cell in row.values()):
            if prompt not in pictures.get(name, {}):
                raise ValueError(f"{name} has no picture of {prompt!r}: expected one behind every number")


def _data_uri(path: Path, side: int) -> str:
    with Image.open(path) as opened:
        small = opened.convert("RGB")
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    small.save(stream, "JPEG", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()


def _interval(cell: Cell, column: Column) -> str:
    if not cell.num_prompts and cell.low == cell.high:
        return ""
    return f"[{cell.low:.{column.digits}f}, {cell.high:.{column.digits}f}]"


def _pipes(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _row(cells: Sequence[str]) -> str:
    # After a line's \\, TeX would read a leading [ or * as an argument.
    return f"{' & '.join(_shielded(cells))} \\\\"


def _shielded(cells: Sequence[str]) -> Iterator[str]:
    yield re.sub(r"^([\[*])", r"{\1}", cells[0])
    yield from cells[1:]


def _line(text: str) -> str:
    return " ".join(text.split())


def escape_markdown(text: str) -> str:
    """One line of plain text, safe within a cell."""
    return re.sub(r"([\\`*_{}\[\]<>|#~$])", r"\\\1", _line(text))


LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    **{character: "\\" + character for character in "&%$#_{}"},
}


def _latex(text: str) -> str:
    return "".join(LATEX.get(character, character) for character in _line(text))

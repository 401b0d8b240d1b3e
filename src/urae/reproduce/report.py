"""A reproduction beside the paper: each number with the paper's own after it, and what differs between the two."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

from urae.io import escape_markdown as escape
from urae.io import markdown_table
from urae.reproduce.measure import Number
from urae.reproduce.plan import TableColumn, TablePlan, TableRow
from urae.statistics.table import ABSENT, UNTRAINED

__all__ = ["Reproduction"]

NEVER_EQUAL = (
    "The paper's reference images, seeds and picture counts are not public, so its numbers are shown for orientation, "
    "and equality with them is never claimed."
)
MINIATURE = (
    "This is the miniature: it shows that the way works, and says nothing about FLUX, of which the paper's numbers "
    "are."
)

RANKS = (
    "A rank is among the rows of a kind, SDEdit and I-Max each with and without the adapter; in brackets are the ranks "
    "that the intervals leave open."
)
Rank = dict[str, int | None]
"""`here` by value, `best` and `worst` by the intervals, and the `paper`'s; None where there is none."""


@dataclass(frozen=True, kw_only=True)
class Reproduction:
    """A plan with its numbers."""

    plan: TablePlan
    numbers: Mapping[tuple[str, str], Number]
    """(row, column) -> measured."""
    notes: Sequence[str]
    """What the numbers rest on."""
    counts: Mapping[str, int]
    """Prompt set -> prompts."""

    def to_markdown(self) -> str:
        """The table, then the notes and what differs."""
        shown = [part for name, column in self._columns().items() for part in self._parts(name, column)]
        rows = [(row.name, *(cell(row) for _, cell in shown)) for row in self.plan.rows]
        table = markdown_table(("", *(name for name, _ in shown)), rows, right=range(1, len(shown) + 1))
        head = "Measured here, with its interval of 95%; the paper's number stands after it in parentheses."
        notes = "\n".join(f"- {escape(note)}" for note in self._notes())
        return "\n\n".join([f"# {escape(self.plan.heading)}", head, table, notes]) + "\n"

    def to_json(self) -> str:
        """Plan, numbers, notes."""
        described = {
            "plan": asdict(self.plan),
            "rows": {
                row.name: {
                    name: {
                        "here": asdict(number) if (number := self.numbers.get((row.name, name))) else None,
                        "paper": row.paper.get(column.paper) if column else None,
                        **(
                            {"rank": self._rank(row, name, column)}
                            if column and self._is_ranked(column)
                            else {}
                        ),
                    }
                    for name, column in self._columns().items()
                }
                for row in self.plan.rows
            },
            "notes": self._notes(),
            "prompts": dict(self.counts),
        }
        return json.dumps(described, indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    def _columns(self) -> dict[str, TableColumn | None]:
        """The plan's, and those that a biased metric brought along."""
        named: dict[str, TableColumn | None] = {column.name: column for column in self.plan.columns}
        return named | {column: None for _, column in self.numbers if column not in named}

    def _parts(
        self, name: str, column: TableColumn | None
    ) -> Iterator[tuple[str, Callable[[TableRow], str]]]:
        """A column of the plan as columns of the page, each with what stands in a row."""
        yield name, lambda row: self._shown(row, name, column)
        if column and self._is_ranked(column):
            yield "rank", lambda row: _rank_shown(self._rank(row, name, column))

    def _is_ranked(self, column: TableColumn) -> bool:
        return self.plan.ranked and column.direction != "neither"

    def _rank(self, row: TableRow, name: str, column: TableColumn) -> Rank:
        """By value, and the best and the worst that the intervals leave open; 1 is the best."""
        group = [other.name for other in self.plan.rows if other.group == row.group]
        numbers = {other: self.numbers[other, name] for other in group if (other, name) in self.numbers}
        paper = row.paper_ranks.get(column.paper)
        if (own := numbers.pop(row.name, None)) is None or own.untrained:
            return {"here": None, "best": None, "worst": None, "paper": paper}
        sign = 1 if column.direction == "higher" else -1
        value, low, high = (sign * number for number in (own.value, own.low, own.high))
        others = [sorted((sign * other.low, sign * other.high)) for other in numbers.values()]
        return {
            "here": 1 + sum(sign * other.value > value for other in numbers.values()),
            "best": 1 + sum(other_low > max(low, high) for other_low, _ in others),
            "worst": 1 + sum(other_high >= min(low, high) for _, other_high in others),
            "paper": paper,
        }

    def _shown(self, row: TableRow, name: str, column: TableColumn | None) -> str:
        number, paper = self.numbers.get((row.name, name)), row.paper.get(column.paper) if column else None
        here = ABSENT
        if number:
            here = UNTRAINED if number.untrained else _interval(number)
        return here if paper is None else f"{here} ({paper:g})"

    def _notes(self) -> list[str]:
        sets = ", ".join(f"{count} prompts of {name}" for name, count in self.counts.items())
        miniature = [MINIATURE] if self.plan.miniature else []
        return [
            *miniature,
            NEVER_EQUAL,
            f"Pictures: one of each prompt, with seed {self.plan.seed}; {sets}.",
            *([RANKS] if self.plan.ranked else []),
            *self.plan.differs,
            *self.notes,
        ]


def _rank_shown(rank: Rank) -> str:
    here = ABSENT if rank["here"] is None else str(rank["here"])
    left_open = f" [{rank['best']}, {rank['worst']}]" if rank["best"] != rank["worst"] else ""
    paper = "" if rank["paper"] is None else f" ({rank['paper']})"
    return f"{here}{left_open}{paper}"


def _interval(number: Number) -> str:
    value, low, high = (f"{v:z.{number.digits}f}" for v in (number.value, number.low, number.high))
    return value if number.low == number.high else f"{value} [{low}, {high}]"

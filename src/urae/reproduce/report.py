"""A reproduction beside the paper: each number with the paper's own after it, and what differs between the two."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
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
        names = self._columns()
        rows = [
            (row.name, *(self._shown(row, name, column) for name, column in names.items()))
            for row in self.plan.rows
        ]
        table = markdown_table(("", *names), rows, right=range(1, len(names) + 1))
        head = "Measured here, with its interval of 95%; the paper's number stands after it in parentheses."
        notes = "\n".join(f"- {escape(note)}" for note in self._notes())
        return "\n\n".join([f"# {escape(self.plan.title)}", head, table, notes]) + "\n"

    def to_json(self) -> str:
        """Plan, numbers, notes."""
        described = {
            "plan": asdict(self.plan),
            "rows": {
                row.name: {
                    name: {
                        "here": asdict(number) if (number := self.numbers.get((row.name, name))) else None,
                        "paper": row.paper.get(column.paper) if column else None,
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
            *self.plan.differs,
            *self.notes,
        ]


def _interval(number: Number) -> str:
    value, low, high = (f"{v:z.{number.digits}f}" for v in (number.value, number.low, number.high))
    return value if number.low == number.high else f"{value} [{low}, {high}]"

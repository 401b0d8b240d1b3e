"""The one writer of Markdown tables."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence

__all__ = ["Markdown", "escape_markdown", "markdown_table"]


class Markdown(str):
    """A cell that is Markdown already, such as a number in bold; any other is escaped."""


def markdown_table(
    columns: Sequence[object], rows: Iterable[Sequence[object]], *, right: Collection[int] = ()
) -> str:
    """A table without a newline at its end. Cells are shown by `str`; an empty one stays empty.

    right: numbers of the columns that stand to the right, from 0. A row of another length is a `ValueError`.
    """
    lines: list[list[object]] = [list(columns), *map(list, rows)]
    for line in lines:
        if len(line) != len(columns):
            raise ValueError(f"a row has {len(line)} cells: expected {len(columns)}")
    ruler: list[object] = [Markdown("---:" if i in right else "---") for i in range(len(columns))]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in [lines[0], ruler, *lines[1:]])


def escape_markdown(text: str) -> str:
    """One line of plain text, safe within a cell."""
    return re.sub(r"([\\`*_{}\[\]<>|#~$])", r"\\\1", _line(text))


def _cell(value: object) -> str:
    return _line(value) if isinstance(value, Markdown) else escape_markdown(str(value))


def _line(text: str) -> str:
    return " ".join(text.split())

"""Measuring pictures: repetition and detail, the two things that go wrong above the native size; numbers with
their uncertainty, and tables of them. The judge is `urae.evaluation.judge`."""

from urae.evaluation.detail import detail, relative_detail
from urae.evaluation.repetition import repetition
from urae.evaluation.statistics import (
    Comparison,
    Interval,
    by_prompt,
    compare,
    compare_all,
    holm,
    mean,
    sign_test,
    wilson,
)
from urae.evaluation.table import Cell, Column, Table, tabulate

__all__ = [
    "Cell",
    "Column",
    "Comparison",
    "Interval",
    "Table",
    "by_prompt",
    "compare",
    "compare_all",
    "detail",
    "holm",
    "mean",
    "relative_detail",
    "repetition",
    "sign_test",
    "tabulate",
    "wilson",
]

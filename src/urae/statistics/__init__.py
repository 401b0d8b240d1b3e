"""Numbers with their uncertainty: intervals, paired comparisons, rankings, agreement, distances of sets, and the tables
that show them."""

from urae.statistics.distances import cmmd, frechet, kid
from urae.statistics.intervals import Comparison, Interval, by_prompt, compare, holm, mean, sign_test, wilson
from urae.statistics.krippendorff import Agreement, agreement, krippendorff_alpha
from urae.statistics.ranking import bradley_terry, rank
from urae.statistics.table import Cell, Column, Table, tabulate

__all__ = [
    "Agreement",
    "Cell",
    "Column",
    "Comparison",
    "Interval",
    "Table",
    "agreement",
    "bradley_terry",
    "by_prompt",
    "cmmd",
    "compare",
    "frechet",
    "holm",
    "kid",
    "krippendorff_alpha",
    "mean",
    "rank",
    "sign_test",
    "tabulate",
    "wilson",
]

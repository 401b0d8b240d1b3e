"""Numbers with their uncertainty: intervals, paired comparisons, rankings, agreement, and the tables that show them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from urae.exports import lazily

if TYPE_CHECKING:
    from urae.statistics.intervals import (
        Comparison,
        Interval,
        by_prompt,
        compare,
        holm,
        mean,
        sign_test,
        wilson,
    )
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
    "compare",
    "holm",
    "krippendorff_alpha",
    "mean",
    "rank",
    "sign_test",
    "tabulate",
    "wilson",
]

__getattr__, __dir__ = lazily(
    __name__,
    {
        "krippendorff": ["Agreement", "agreement", "krippendorff_alpha"],
        "intervals": [
            "Comparison",
            "Interval",
            "by_prompt",
            "compare",
            "holm",
            "mean",
            "sign_test",
            "wilson",
        ],
        "ranking": ["bradley_terry", "rank"],
        "table": ["Cell", "Column", "Table", "tabulate"],
    },
)

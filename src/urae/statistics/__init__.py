"""Numbers with their uncertainty: intervals, paired comparisons, rankings, agreement, distances of sets, and the tables
that show them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from urae.exports import lazily

if TYPE_CHECKING:
    from urae.statistics.distances import cmmd, frechet, kid
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

__getattr__, __dir__, __all__ = lazily(__name__)

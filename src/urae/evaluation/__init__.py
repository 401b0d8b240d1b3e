"""Measuring pictures: metrics and what each can see at 2K and 4K, numbers with their uncertainty, tables of them.

    table = evaluate({"ours": "out/ours", "base": "out/base"}, metrics=("repetition", "patch_fid"), against="real")

The judge is `urae.evaluation.judge`, the user study `urae.evaluation.study`, DPG-Bench `urae.evaluation.dpg`. What is
exported is imported when it is first used: metrics need torch, and neither the judge nor the study does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from urae.exports import lazily

if TYPE_CHECKING:
    from urae.evaluation.measure import DEFAULT_METRICS, Evaluation, evaluate, plan_evaluation
    from urae.evaluation.metrics import METRICS, Metric, detail, metrics_table, relative_detail, repetition
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
    "DEFAULT_METRICS",
    "METRICS",
    "Cell",
    "Column",
    "Comparison",
    "Evaluation",
    "Interval",
    "Metric",
    "Table",
    "by_prompt",
    "compare",
    "compare_all",
    "detail",
    "evaluate",
    "holm",
    "mean",
    "metrics_table",
    "plan_evaluation",
    "relative_detail",
    "repetition",
    "sign_test",
    "tabulate",
    "wilson",
]

__getattr__, __dir__ = lazily(
    __name__,
    {
        "measure": ["DEFAULT_METRICS", "Evaluation", "evaluate", "plan_evaluation"],
        "metrics": ["METRICS", "Metric", "detail", "metrics_table", "relative_detail", "repetition"],
        "statistics": [
            *("Comparison", "Interval", "by_prompt", "compare", "compare_all"),
            *("holm", "mean", "sign_test", "wilson"),
        ],
        "table": ["Cell", "Column", "Table", "tabulate"],
    },
)

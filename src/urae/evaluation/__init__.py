"""Measuring pictures: metrics and what each can see at 2K and 4K, numbers with their uncertainty, tables of them.

    table = evaluate({"ours": "out/ours", "base": "out/base"}, metrics=("repetition", "patch_fid"), against="real")

The judge is `urae.evaluation.judge`, the user study `urae.evaluation.study`."""

from urae.evaluation.detail import detail, relative_detail
from urae.evaluation.evaluate import DEFAULT_METRICS, Evaluation, evaluate, plan_evaluation
from urae.evaluation.metrics import METRICS, Metric, metrics_table
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

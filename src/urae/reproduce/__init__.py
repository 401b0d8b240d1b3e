"""The paper's tables as plans: every cell named, what is missing made, the result beside the paper's numbers.

    plan = read_plan("table1", {"models.flux": "/models/FLUX.1-dev", "prompts.hpd": "hpd.jsonl"})
    print(reproduce(plan, "out/table1").to_markdown())

The same plan runs on the miniature, `read_plan("table1", miniature=True)`, which needs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from urae.exports import lazily

if TYPE_CHECKING:
    from urae.reproduce.costs import Expense, expenses, judge_cost
    from urae.reproduce.measure import Number
    from urae.reproduce.missing import needs
    from urae.reproduce.plan import PLANS, Made, TableColumn, TablePlan, TableRow, read_plan
    from urae.reproduce.report import Reproduction
    from urae.reproduce.run import MissingInputs, State, reproduce, survey

__getattr__, __dir__, __all__ = lazily(__name__)

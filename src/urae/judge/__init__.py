"""A vision-language model as the judge: preferences in pairs and scores from 0 to 100 (paper, Appendix C.1).

    plan = plan_judging({"ours": "out/ours", "base": "out/base"}, prompts, endpoint=Endpoint(model="gpt-4o"))
    print(plan.cost({}))                              # before anything is spent
    verdicts = judge(plan, journal="judged/answers.jsonl")

Any OpenAI-compatible server will do. Every pair is shown in both orders, answers are read strictly and counted when
invalid, and a run that is killed goes on without paying twice for an answer that it has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from urae.exports import lazily

if TYPE_CHECKING:
    from urae.judge.ask import judge
    from urae.judge.endpoint import Endpoint, Unanswered
    from urae.judge.instructions import Instructions, read_instructions
    from urae.judge.journal import read_journal
    from urae.judge.pictures import View
    from urae.judge.plan import ASPECTS, Cost, Plan, plan_judging
    from urae.judge.verdicts import Preference, Verdicts, count_verdicts
    from urae.metrics.matching import read_prompts
    from urae.statistics import bradley_terry, rank

__all__ = [
    "ASPECTS",
    "Cost",
    "Endpoint",
    "Instructions",
    "Plan",
    "Preference",
    "Unanswered",
    "Verdicts",
    "View",
    "bradley_terry",
    "count_verdicts",
    "judge",
    "plan_judging",
    "rank",
    "read_instructions",
    "read_journal",
    "read_prompts",
]

__getattr__, __dir__ = lazily(
    __name__,
    {
        "urae.metrics.matching": ["read_prompts"],
        "urae.statistics": ["bradley_terry", "rank"],
        "ask": ["judge"],
        "endpoint": ["Endpoint", "Unanswered"],
        "instructions": ["Instructions", "read_instructions"],
        "journal": ["read_journal"],
        "pictures": ["View"],
        "plan": ["ASPECTS", "Cost", "Plan", "plan_judging"],
        "verdicts": ["Preference", "Verdicts", "count_verdicts"],
    },
)

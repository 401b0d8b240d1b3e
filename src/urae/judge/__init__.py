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
    from urae.io import Unanswered
    from urae.judge.ask import judge
    from urae.judge.endpoint import Endpoint
    from urae.judge.instructions import Instructions, read_instructions
    from urae.judge.journal import read_answers
    from urae.judge.pictures import View
    from urae.judge.plan import ASPECTS, Cost, JudgingPlan, JudgingRequest, plan_judging
    from urae.judge.verdicts import Preference, Verdicts, count_verdicts
    from urae.metrics.matching import prompts_by_id

__getattr__, __dir__, __all__ = lazily(__name__)

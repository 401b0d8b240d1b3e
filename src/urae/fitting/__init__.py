"""Which resolution policy suits a model, by measuring the model itself: the velocity error of the unadapted weights on
large pictures, at fixed noise, under one policy after another. Nothing is drawn, trained or judged."""

from __future__ import annotations

from typing import TYPE_CHECKING

from urae.exports import lazily

if TYPE_CHECKING:
    from urae.fitting.candidates import STOCK, candidates_for
    from urae.fitting.plan import FittingPlan, plan_fitting
    from urae.fitting.request import RULES, FittingRequest
    from urae.fitting.result import FittingResult, RankedPolicy
    from urae.fitting.run import run_fitting

__getattr__, __dir__, __all__ = lazily(__name__)

"""Planning: does a run fit, how long does it take and what does it cost, before anything is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from urae.exports import lazily

if TYPE_CHECKING:
    from urae.planning.gpus import GPUS, Gpu, gpu_here, gpu_named
    from urae.planning.needs import Option, Plan, plan
    from urae.planning.summary import refusal, report

__all__ = [
    "GPUS",
    "Gpu",
    "Option",
    "Plan",
    "gpu_here",
    "gpu_named",
    "plan",
    "refusal",
    "report",
]

__getattr__, __dir__ = lazily(
    __name__,
    {
        "gpus": ["GPUS", "Gpu", "gpu_here", "gpu_named"],
        "needs": ["Option", "Plan", "plan"],
        "summary": ["refusal", "report"],
    },
)

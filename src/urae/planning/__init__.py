"""Planning: does a run fit, how long does it take and what does it cost, before anything is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from urae.exports import lazily

if TYPE_CHECKING:
    from urae.planning.drawing import DrawingNeeds
    from urae.planning.gpus import GIB, GPUS, Gpu, gpu_here, gpu_named
    from urae.planning.needs import Option, TrainingNeeds, call_seconds, plan
    from urae.planning.summary import as_json, in_short, refusal, report

__getattr__, __dir__, __all__ = lazily(__name__)

"""Planning: does a run fit, how long does it take and what does it cost, before anything is loaded."""

from urae.planning.gpus import GPUS, Gpu, gpu_here, gpu_named
from urae.planning.needs import Option, TrainingPlan, plan
from urae.planning.report import refusal, report

__all__ = ["GPUS", "Gpu", "Option", "TrainingPlan", "gpu_here", "gpu_named", "plan", "refusal", "report"]

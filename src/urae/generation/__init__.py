"""Making images: the methods, where the memory goes, opening a model, and what a PNG says about itself."""

from urae.generation.generate import DEFAULT_GUIDANCE, METHODS, generate, policy_for
from urae.generation.memory import MemoryPlan, plan_memory
from urae.generation.open import model_name, open_pipeline
from urae.generation.provenance import Provenance, read_png_metadata, save_png

__all__ = [
    "DEFAULT_GUIDANCE",
    "METHODS",
    "MemoryPlan",
    "Provenance",
    "generate",
    "model_name",
    "open_pipeline",
    "plan_memory",
    "policy_for",
    "read_png_metadata",
    "save_png",
]

"""Making images: the methods, where the memory goes, opening a model, and what a PNG says about itself."""

from urae.generation.direct import Direct
from urae.generation.generate import DEFAULT_GUIDANCE, generate, policy_for
from urae.generation.imax import Imax
from urae.generation.memory import MemoryPlan, plan_memory
from urae.generation.methods import method_from_texts, method_named
from urae.generation.native import TwoPass, native_picture_size
from urae.generation.open import model_name, open_pipeline
from urae.generation.provenance import Provenance, read_png_metadata, save_png
from urae.generation.sdedit import Sdedit, nominal_strength

__all__ = [
    "DEFAULT_GUIDANCE",
    "Direct",
    "Imax",
    "MemoryPlan",
    "Provenance",
    "Sdedit",
    "TwoPass",
    "generate",
    "method_from_texts",
    "method_named",
    "model_name",
    "native_picture_size",
    "nominal_strength",
    "open_pipeline",
    "plan_memory",
    "policy_for",
    "read_png_metadata",
    "save_png",
]

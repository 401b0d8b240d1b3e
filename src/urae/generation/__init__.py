"""Making images: the methods, where the memory goes, opening a model, and what a PNG says about itself."""

from urae.execution import FirstBlock, MemoryPlan, SpeedPlan, TaylorSeer, plan_memory, plan_speed
from urae.families import model_name, open_pipeline
from urae.generation.compare import Outcome, Way, compare_ways, grid
from urae.generation.direct import Direct
from urae.generation.drawing import DEFAULT_GUIDANCE, generate, policy_for
from urae.generation.esrgan import Esrgan
from urae.generation.hiflow import Hiflow
from urae.generation.imax import Imax
from urae.generation.methods import method_from_texts, method_named
from urae.generation.native import TwoPass, native_picture_size
from urae.generation.provenance import Provenance, read_png_metadata, save_png
from urae.generation.sdedit import Sdedit, nominal_strength
from urae.generation.tiled import Tiled

__all__ = [
    "DEFAULT_GUIDANCE",
    "Direct",
    "Esrgan",
    "FirstBlock",
    "Hiflow",
    "Imax",
    "MemoryPlan",
    "Outcome",
    "Provenance",
    "Sdedit",
    "SpeedPlan",
    "TaylorSeer",
    "Tiled",
    "TwoPass",
    "Way",
    "compare_ways",
    "generate",
    "grid",
    "method_from_texts",
    "method_named",
    "model_name",
    "native_picture_size",
    "nominal_strength",
    "open_pipeline",
    "plan_memory",
    "plan_speed",
    "policy_for",
    "read_png_metadata",
    "save_png",
]

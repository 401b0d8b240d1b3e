"""Making images: the methods, where the memory goes, opening a model, and what a PNG says about itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from urae.exports import lazily

if TYPE_CHECKING:
    from urae.execution import FirstBlock, MemoryPlan, SpeedPlan, TaylorSeer, plan_memory, plan_speed
    from urae.families import model_name, open_pipeline
    from urae.generation.asking import DrawingRequest, ModelRequest
    from urae.generation.compare import Way, WayResult, compare_ways, grid
    from urae.generation.direct import Direct
    from urae.generation.drawing import generate
    from urae.generation.esrgan import Esrgan
    from urae.generation.hiflow import Hiflow
    from urae.generation.imax import Imax
    from urae.generation.methods import method_from_texts, method_named
    from urae.generation.native import TwoPass, native_picture_size
    from urae.generation.picture_files import PictureFiles
    from urae.generation.plan import DrawingPlan, plan_drawing
    from urae.generation.policies import policy_for
    from urae.generation.provenance import Provenance, read_png_metadata, save_png
    from urae.generation.sdedit import Sdedit, nominal_strength
    from urae.generation.tiled import Tiled

__all__ = [
    "Direct",
    "DrawingPlan",
    "DrawingRequest",
    "Esrgan",
    "FirstBlock",
    "Hiflow",
    "Imax",
    "MemoryPlan",
    "ModelRequest",
    "PictureFiles",
    "Provenance",
    "Sdedit",
    "SpeedPlan",
    "TaylorSeer",
    "Tiled",
    "TwoPass",
    "Way",
    "WayResult",
    "compare_ways",
    "generate",
    "grid",
    "method_from_texts",
    "method_named",
    "model_name",
    "native_picture_size",
    "nominal_strength",
    "open_pipeline",
    "plan_drawing",
    "plan_memory",
    "plan_speed",
    "policy_for",
    "read_png_metadata",
    "save_png",
]

__getattr__, __dir__ = lazily(
    __name__,
    {
        "urae.execution": [
            "FirstBlock",
            "MemoryPlan",
            "SpeedPlan",
            "TaylorSeer",
            "plan_memory",
            "plan_speed",
        ],
        "urae.families": ["model_name", "open_pipeline"],
        "asking": ["DrawingRequest", "ModelRequest"],
        "compare": ["Way", "WayResult", "compare_ways", "grid"],
        "direct": ["Direct"],
        "drawing": ["generate"],
        "esrgan": ["Esrgan"],
        "hiflow": ["Hiflow"],
        "imax": ["Imax"],
        "methods": ["method_from_texts", "method_named"],
        "native": ["TwoPass", "native_picture_size"],
        "picture_files": ["PictureFiles"],
        "plan": ["DrawingPlan", "plan_drawing"],
        "policies": ["policy_for"],
        "provenance": ["Provenance", "read_png_metadata", "save_png"],
        "sdedit": ["Sdedit", "nominal_strength"],
        "tiled": ["Tiled"],
    },
    modules=["stock"],
)

"""Making images: the methods, where the memory goes, opening a model, and what a PNG says about itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from urae.exports import lazily

if TYPE_CHECKING:
    from urae.execution import FirstBlock, MemoryPlan, SpeedPlan, TaylorSeer, plan_memory, plan_speed
    from urae.families import model_name, open_pipeline
    from urae.generation.again import Again, asked_again
    from urae.generation.asking import DrawingRequest, ModelRequest
    from urae.generation.compare import Way, WayResult, about, compare_ways, grid, tiles_of
    from urae.generation.direct import Direct
    from urae.generation.drawing import generate
    from urae.generation.esrgan import Esrgan
    from urae.generation.hiflow import Hiflow
    from urae.generation.imax import Imax
    from urae.generation.methods import method_from_texts, method_named
    from urae.generation.native import TwoPass, native_picture_size
    from urae.generation.picture_files import PictureFiles, contact_page
    from urae.generation.plan import DrawingPlan, plan_drawing
    from urae.generation.policies import policy_for
    from urae.generation.sdedit import Sdedit, nominal_strength
    from urae.generation.tiled import Tiled
    from urae.provenance import Provenance, read_png_metadata, save_picture, save_png

__getattr__, __dir__, __all__ = lazily(__name__)

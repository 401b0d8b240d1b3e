"""Which backbone a pipeline has."""

from __future__ import annotations

from typing import Any

from accelerate.utils import extract_model_from_parallel
from diffusers import FluxTransformer2DModel

from urae.families.family import Backbone
from urae.families.flux import Flux

__all__ = ["BACKBONES", "backbone_of"]

BACKBONES: dict[type, Backbone] = {FluxTransformer2DModel: Flux()}
"""By the class of the pipeline's transformer."""


def backbone_of(pipe: Any) -> Backbone:
    """The backbone of a stock pipeline, by its transformer's class, compiled or not; `ValueError` for an unknown
    family."""
    transformer = extract_model_from_parallel(pipe.transformer, keep_torch_compile=False)
    for kind, backbone in BACKBONES.items():
        if isinstance(transformer, kind):
            return backbone
    known = ", ".join(kind.__name__ for kind in BACKBONES)
    raise ValueError(f"{type(transformer).__name__} is not a supported transformer: expected one of {known}")

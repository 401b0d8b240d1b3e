"""The model families: the only room that knows one. Encode text and images, velocity, decode, open."""

from __future__ import annotations

from typing import TYPE_CHECKING

from urae.exports import lazily

if TYPE_CHECKING:
    from urae.families.backbones import BACKBONES, backbone_of
    from urae.families.family import Backbone, Embeddings, Exchange, Posterior
    from urae.families.flux import Flux
    from urae.families.opening import DTYPES, check_safetensors, model_name, open_pipeline

__all__ = [
    "BACKBONES",
    "DTYPES",
    "Backbone",
    "Embeddings",
    "Exchange",
    "Flux",
    "Posterior",
    "backbone_of",
    "check_safetensors",
    "model_name",
    "open_pipeline",
]

__getattr__, __dir__ = lazily(
    __name__,
    {
        "backbones": ["BACKBONES", "backbone_of"],
        "family": ["Backbone", "Embeddings", "Exchange", "Posterior"],
        "flux": ["Flux"],
        "opening": ["DTYPES", "check_safetensors", "model_name", "open_pipeline"],
    },
)

"""Which family a stock pipeline or transformer belongs to, by its transformer's class."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from functools import cache
from typing import Any

from urae.families.family import Family

__all__ = ["FAMILIES", "families", "family_named", "family_of"]

FAMILIES = {
    "ChromaTransformer2DModel": "urae.families.chroma:Chroma",
    "FluxTransformer2DModel": "urae.families.flux:Flux",
    "Flux2Transformer2DModel": "urae.families.flux2:Flux2",
    "Krea2Transformer2DModel": "urae.families.krea2:Krea2",
    "QwenImageTransformer2DModel": "urae.families.qwen_image:QwenImage",
    "ZImageTransformer2DModel": "urae.families.z_image:ZImage",
}
"""Class of the transformer in diffusers -> where its family is; imported when it is first asked for."""

OTHERS = {
    "AuraFlowTransformer2DModel": "AuraFlow",
    "BriaTransformer2DModel": "Bria",
    "CogView4Transformer2DModel": "CogView4",
    "HiDreamImageTransformer2DModel": "HiDream",
    "HunyuanDiT2DModel": "Hunyuan-DiT",
    "HunyuanImageTransformer2DModel": "HunyuanImage",
    "Lumina2Transformer2DModel": "Lumina 2",
    "OmniGenTransformer2DModel": "OmniGen",
    "PixArtTransformer2DModel": "PixArt",
    "SanaTransformer2DModel": "Sana",
    "SD3Transformer2DModel": "Stable Diffusion 3",
    "UNet2DConditionModel": "Stable Diffusion with a U-Net",
    "WanTransformer3DModel": "Wan",
}
"""Families that have no folder here, by their transformer's class, so that they can be refused by name."""


def family_of(target: Any) -> Family:
    """The family of a stock pipeline, or of a transformer, compiled or not. `ValueError` for one that has no folder
    here."""
    transformer = getattr(target, "transformer", getattr(target, "unet", target))
    for wrapped in ("_orig_mod", "module"):  # by torch.compile, and by distributed data parallelism
        transformer = getattr(transformer, wrapped, transformer)
    for kind in type(transformer).__mro__:
        if kind.__name__ in FAMILIES:
            return family_named(kind.__name__)
    raise ValueError(_refusal(type(transformer).__name__))


@cache
def family_named(transformer_class: str) -> Family:
    """The family of a transformer's class, by its name. `ValueError` for one that has no folder here."""
    if transformer_class not in FAMILIES:
        raise ValueError(_refusal(transformer_class))
    module, _, name = FAMILIES[transformer_class].partition(":")
    return getattr(importlib.import_module(module), name)()


def families() -> Iterator[Family]:
    """All families that have a folder."""
    return (family_named(name) for name in FAMILIES)


def _refusal(transformer_class: str) -> str:
    known = ", ".join(family.name for family in families())
    name = OTHERS.get(transformer_class)
    what = f"{name} ({transformer_class})" if name else transformer_class
    return f"{what} is not a supported model family: expected one of {known}"

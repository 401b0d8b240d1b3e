"""Chroma's modules in its original repository: FLUX.1's, less what Chroma has not, and the network that makes the
modulation."""

from __future__ import annotations

from urae.families.family import ModuleNames
from urae.families.flux.names import NAMES as FLUX

__all__ = ["NAMES"]

NETWORK = "distilled_guidance_layer"

NAMES = ModuleNames(
    top={
        **{name: FLUX.top[name] for name in ("img_in", "txt_in", "final_layer.linear")},
        f"{NETWORK}.in_proj": f"{NETWORK}.in_proj",
        **{
            f"{NETWORK}.layers.{index}.{original}": f"{NETWORK}.layers.{index}.{part}"
            for index in range(5)
            for original, part in (("in_layer", "linear_1"), ("out_layer", "linear_2"))
        },
        **{f"{NETWORK}.norms.{index}.scale": f"{NETWORK}.norms.{index}.weight" for index in range(5)},
        f"{NETWORK}.out_proj": f"{NETWORK}.out_proj",
    },
    blocks={
        listed: (block, {name: parts for name, parts in modules.items() if not name.endswith(".lin")})
        for listed, (block, modules) in FLUX.blocks.items()
    },
    swapped="",
    mlp_ratio=FLUX.mlp_ratio,
    lost_by_stock=FLUX.lost_by_stock,
    ratios=FLUX.ratios,
)

"""Krea 2's modules in its original repository, whose names ComfyUI and the trainers musubi-tuner and ai-toolkit use."""

from __future__ import annotations

from urae.families.family import ModuleNames

__all__ = ["NAMES"]

BLOCK = {
    "attn.wq": ("attn.to_q",),
    "attn.wk": ("attn.to_k",),
    "attn.wv": ("attn.to_v",),
    "attn.gate": ("attn.to_gate",),
    "attn.wo": ("attn.to_out.0",),
    "mlp.gate": ("ff.gate",),
    "mlp.up": ("ff.up",),
    "mlp.down": ("ff.down",),
}
"""In every block, those that fuse the text's layers included; nothing is fused."""

NAMES = ModuleNames(
    top={
        "first": "img_in",
        "tmlp.0": "time_embed.linear_1",
        "tmlp.2": "time_embed.linear_2",
        "tproj.1": "time_mod_proj",
        "txtmlp.1": "txt_in.linear_1",
        "txtmlp.3": "txt_in.linear_2",
        "txtfusion.projector": "text_fusion.projector",
        "last.linear": "final_layer.linear",
        **{
            f"txtfusion.{kind}_blocks.{index}.{name}": f"text_fusion.{kind}_blocks.{index}.{part}"
            for kind in ("layerwise", "refiner")
            for index in range(2)
            for name, (part,) in BLOCK.items()
        },
    },
    blocks={"blocks": ("transformer_blocks", BLOCK)},
    swapped="",
    mlp_ratio=0,
    lost_by_stock={"comfy": ()},
)

"""Qwen-Image's modules: ComfyUI and the trainers musubi-tuner and ai-toolkit call them as diffusers does, after
prefixes of their own."""

from __future__ import annotations

from urae.families.family import ModuleNames

__all__ = ["NAMES"]

MODULES = (
    *(f"attn.{layer}" for layer in ("to_q", "to_k", "to_v", "to_out.0", "norm_q", "norm_k")),
    *(f"attn.{layer}" for layer in ("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")),
    *("attn.norm_added_q", "attn.norm_added_k"),
    *(f"{stream}_{layer}" for stream in ("img", "txt") for layer in ("mod.1", "mlp.net.0.proj", "mlp.net.2")),
)
"""Of a block."""

NAMES = ModuleNames(
    top={
        name: name
        for name in (
            *("img_in", "txt_in", "txt_norm", "norm_out.linear", "proj_out"),
            *(f"time_text_embed.timestep_embedder.linear_{index}" for index in (1, 2)),
        )
    },
    blocks={"transformer_blocks": ("transformer_blocks", {name: (name,) for name in MODULES})},
    swapped="",
    mlp_ratio=0,
    lost_by_stock={"comfy": (), "kohya": ()},
)

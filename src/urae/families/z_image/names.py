"""Z-Image's modules as ComfyUI's checkpoints name them, with q, k and v in one; musubi-tuner and ai-toolkit use either
these or diffusers' own."""

from __future__ import annotations

from urae.families.family import ModuleNames

__all__ = ["NAMES"]

BLOCK = {
    "attention.qkv": ("attention.to_q", "attention.to_k", "attention.to_v"),
    "attention.out": ("attention.to_out.0",),
    "attention.q_norm": ("attention.norm_q",),
    "attention.k_norm": ("attention.norm_k",),
    **{
        name: (name,)
        for name in (
            *(f"feed_forward.w{index}" for index in (1, 2, 3)),
            *(f"{part}_norm{index}" for part in ("attention", "ffn") for index in (1, 2)),
            "adaLN_modulation.0",
        )
    },
}
"""In every block; those of the text have no modulation."""

NAMES = ModuleNames(
    top={
        "x_embedder": "all_x_embedder.2-1",
        "final_layer.linear": "all_final_layer.2-1.linear",
        "final_layer.adaLN_modulation.1": "all_final_layer.2-1.adaLN_modulation.1",
        **{
            name: name
            for name in ("t_embedder.mlp.0", "t_embedder.mlp.2", "cap_embedder.0", "cap_embedder.1")
        },
    },
    blocks={name: (name, BLOCK) for name in ("layers", "noise_refiner", "context_refiner")},
    swapped="",
    mlp_ratio=0,
    # Of ComfyUI's own layout diffusers reads neither the fused layers nor the names of what surrounds the blocks.
    lost_by_stock={"comfy": ("all_*", "*.attention.to_*"), "kohya": ("all_*",)},
)

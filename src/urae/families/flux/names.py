"""FLUX.1's modules in its original repository, whose names kohya's trainers and ComfyUI use."""

from __future__ import annotations

from urae.families.family import ModuleNames

__all__ = ["NAMES"]

NAMES = ModuleNames(
    top={
        "img_in": "x_embedder",
        "txt_in": "context_embedder",
        "time_in.in_layer": "time_text_embed.timestep_embedder.linear_1",
        "time_in.out_layer": "time_text_embed.timestep_embedder.linear_2",
        "vector_in.in_layer": "time_text_embed.text_embedder.linear_1",
        "vector_in.out_layer": "time_text_embed.text_embedder.linear_2",
        "guidance_in.in_layer": "time_text_embed.guidance_embedder.linear_1",
        "guidance_in.out_layer": "time_text_embed.guidance_embedder.linear_2",
        "final_layer.linear": "proj_out",
        "final_layer.adaLN_modulation.1": "norm_out.linear",
    },
    blocks={
        "double_blocks": (
            "transformer_blocks",
            {
                "img_attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
                "img_attn.norm.query_norm.scale": ("attn.norm_q.weight",),
                "img_attn.norm.key_norm.scale": ("attn.norm_k.weight",),
                "img_attn.proj": ("attn.to_out.0",),
                "img_mlp.0": ("ff.net.0.proj",),
                "img_mlp.2": ("ff.net.2",),
                "img_mod.lin": ("norm1.linear",),
                "txt_attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
                "txt_attn.norm.query_norm.scale": ("attn.norm_added_q.weight",),
                "txt_attn.norm.key_norm.scale": ("attn.norm_added_k.weight",),
                "txt_attn.proj": ("attn.to_add_out",),
                "txt_mlp.0": ("ff_context.net.0.proj",),
                "txt_mlp.2": ("ff_context.net.2",),
                "txt_mod.lin": ("norm1_context.linear",),
            },
        ),
        "single_blocks": (
            "single_transformer_blocks",
            {
                "linear1": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"),
                "linear2": ("proj_out",),
                "norm.query_norm.scale": ("attn.norm_q.weight",),
                "norm.key_norm.scale": ("attn.norm_k.weight",),
                "modulation.lin": ("norm.linear",),
            },
        ),
    },
    # Stored as (shift, scale), where diffusers has (scale, shift).
    swapped="norm_out.linear",
    mlp_ratio=4,
    lost_by_stock={"kohya": ("re:^(?!.*blocks[.]).*",)},
    ratios={"single_blocks.#.linear1": 7, "single_blocks.#.linear2": 1 / 5}
    | {
        f"double_blocks.#.{stream}_mlp.{index}": ratio
        for stream in ("img", "txt")
        for index, ratio in ((0, 4), (2, 1 / 4))
    },
)

"""FLUX.2's modules in its original repository, whose names ComfyUI and the trainers musubi-tuner and ai-toolkit use.

Most of the names are FLUX.1's; the shapes of the MLPs are not.
"""

from __future__ import annotations

from urae.families.family import ModuleNames
from urae.families.flux.names import NAMES as FLUX

__all__ = ["NAMES"]

EMBEDDER = "time_guidance_embed"
MODULATIONS = ("double_stream_modulation_img", "double_stream_modulation_txt", "single_stream_modulation")

DOUBLE = {
    **{name: parts for name, parts in FLUX.blocks["double_blocks"][1].items() if "_attn." in name},
    "img_mlp.0": ("ff.linear_in",),
    "img_mlp.2": ("ff.linear_out",),
    "txt_mlp.0": ("ff_context.linear_in",),
    "txt_mlp.2": ("ff_context.linear_out",),
}

NAMES = ModuleNames(
    top={
        **{
            name: FLUX.top[name]
            for name in FLUX.top
            if name.split(".")[0] in ("img_in", "txt_in", "final_layer")
        },
        "time_in.in_layer": f"{EMBEDDER}.timestep_embedder.linear_1",
        "time_in.out_layer": f"{EMBEDDER}.timestep_embedder.linear_2",
        "guidance_in.in_layer": f"{EMBEDDER}.guidance_embedder.linear_1",
        "guidance_in.out_layer": f"{EMBEDDER}.guidance_embedder.linear_2",
        **{f"{name}.lin": f"{name}.linear" for name in MODULATIONS},
    },
    blocks={
        "double_blocks": ("transformer_blocks", DOUBLE),
        "single_blocks": (
            "single_transformer_blocks",
            {
                "linear1": ("attn.to_qkv_mlp_proj",),
                "linear2": ("attn.to_out",),
                "norm.query_norm.scale": ("attn.norm_q.weight",),
                "norm.key_norm.scale": ("attn.norm_k.weight",),
            },
        ),
    },
    swapped=FLUX.swapped,
    mlp_ratio=3,
    # Of ComfyUI's layout diffusers does not swap the halves of the last modulation.
    lost_by_stock={
        "comfy": (FLUX.swapped,),
        "kohya": (FLUX.swapped, f"{EMBEDDER}.guidance_embedder.*", "*_modulation*"),
    },
    ratios={"single_blocks.#.linear1": 9, "single_blocks.#.linear2": 1 / 4}
    | {
        f"double_blocks.#.{stream}_mlp.{index}": ratio
        for stream in ("img", "txt")
        for index, ratio in ((0, 6), (2, 1 / 3))
    },
)

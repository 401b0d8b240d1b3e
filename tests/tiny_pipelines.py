"""The transformers of the golden values, and the tiny random pipeline around one."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from safetensors.torch import load_file

GOLDEN = Path(__file__).parent / "golden"


def golden_transformer(guidance: bool = True) -> FluxTransformer2DModel:
    """The tiny FLUX transformer on which the golden values were computed, fp32, in eval mode."""
    config = json.loads((GOLDEN / "meta.json").read_text())["config"]
    transformer = FluxTransformer2DModel(**config, guidance_embeds=guidance)
    name = "true" if guidance else "false"
    transformer.load_state_dict(load_file(GOLDEN / f"transformer_guidance_{name}.safetensors"))
    return transformer.eval()


def tiny_pipeline(seed: int = 0) -> FluxPipeline:
    """A stock FluxPipeline with random weights and no text encoders: call it with `prompt_embeds` (B, T, 32)
    and `pooled_prompt_embeds` (B, 24). Native size 64 px; 16 px per token, as FLUX."""
    torch.manual_seed(seed)
    vae = AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        block_out_channels=[8, 8, 8, 8],
        layers_per_block=1,
        latent_channels=16,
        norm_num_groups=2,
        sample_size=64,
        shift_factor=0.1159,
        scaling_factor=0.3611,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )
    scheduler = FlowMatchEulerDiscreteScheduler(
        shift=3.0,
        use_dynamic_shifting=True,
        base_shift=0.5,
        max_shift=1.15,
        base_image_seq_len=256,
        max_image_seq_len=4096,
    )
    pipe = FluxPipeline(
        scheduler=scheduler,
        vae=vae.eval(),
        text_encoder=None,
        tokenizer=None,
        text_encoder_2=None,
        tokenizer_2=None,
        transformer=golden_transformer(),
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe

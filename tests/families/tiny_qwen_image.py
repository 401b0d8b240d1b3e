"""Qwen-Image of toy width with random weights."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import (
    AutoencoderKLQwenImage,
    FlowMatchEulerDiscreteScheduler,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
)
from tiny_krea2 import NATIVE, words_tokenizer
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

WIDTH = 16
CONFIG = {"num_layers": 2, "num_attention_heads": 1, "joint_attention_dim": WIDTH}
"""Axes and theta are the real ones."""


def qwen_image(*, native: int = NATIVE, **config: Any) -> QwenImagePipeline:
    """A whole stock pipeline with at most 12 text tokens, five of which close the template; native 0: as it is
    published."""
    torch.manual_seed(0)
    transformer = QwenImageTransformer2DModel(**{**CONFIG, **config}).eval()
    tokenizer = words_tokenizer()
    vae = AutoencoderKLQwenImage(base_dim=8, num_res_blocks=1)
    if native:
        vae.register_to_config(sample_size=native)
    scheduler = FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True,
        base_shift=0.5,
        max_shift=0.9,
        base_image_seq_len=256,
        max_image_seq_len=8192,
        shift_terminal=0.02,
    )
    return QwenImagePipeline(
        scheduler=scheduler,
        vae=vae.eval(),
        text_encoder=_encoder(len(tokenizer)).eval(),
        tokenizer=tokenizer,
        transformer=transformer,
    )


def _encoder(num_tokens: int) -> Qwen2_5_VLForConditionalGeneration:
    text = {
        "vocab_size": num_tokens,
        "hidden_size": WIDTH,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "num_key_value_heads": 1,
        "rope_scaling": {"rope_type": "default", "type": "default", "mrope_section": [2, 3, 3]},
    }
    vision = {
        "depth": 1,
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_heads": 1,
        "out_hidden_size": WIDTH,
    }
    return Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text, vision_config=vision))

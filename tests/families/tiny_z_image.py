"""Z-Image of toy width with random weights."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, ZImagePipeline, ZImageTransformer2DModel
from tiny_flux2 import letter_tokenizer
from transformers import Qwen3Config, Qwen3Model

TEXT_TOKENS = 32
"""To which the transformer pads the text anyway."""
WIDTH = 16
CONFIG = {
    "dim": 128,
    "n_layers": 1,
    "n_refiner_layers": 1,
    "n_heads": 1,
    "n_kv_heads": 1,
    "cap_feat_dim": WIDTH,
}
"""Axes and theta are the real ones."""

LANGUAGE = {
    "hidden_size": WIDTH,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 1,
    "num_key_value_heads": 1,
    "head_dim": 16,
}


def z_image(*, vae: AutoencoderKL, **config: Any) -> ZImagePipeline:
    """A whole stock pipeline; three tokens of the text are the template's."""
    torch.manual_seed(0)
    transformer = ZImageTransformer2DModel(**{**CONFIG, **config}).eval()
    tokenizer = letter_tokenizer("[U]{{ messages[0]['content'] }}[E][A]", TEXT_TOKENS)
    encoder = Qwen3Model(Qwen3Config(vocab_size=len(tokenizer), **LANGUAGE))
    with torch.no_grad():
        for token in (transformer.x_pad_token, transformer.cap_pad_token):
            token.normal_()  # they would be zero, and hide what padding does
    return ZImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=6.0),
        vae=vae,
        text_encoder=encoder.eval(),
        tokenizer=tokenizer,
        transformer=transformer,
    )

"""Krea 2 of toy width with random weights."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import (
    AutoencoderKLQwenImage,
    FlowMatchEulerDiscreteScheduler,
    Krea2Pipeline,
    Krea2Transformer2DModel,
)
from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3VLConfig, Qwen3VLModel

CONFIG = {
    "num_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 128,
    "text_hidden_dim": 32,
    "num_text_layers": 3,
    "text_num_attention_heads": 2,
    "text_num_key_value_heads": 2,
    "text_intermediate_size": 64,
}
"""Axes and theta are the real ones."""

NATIVE = 64
"""Side in pixels: 4 x 4 tokens."""

TEXT_TOKENS = 12


def krea2(*, native: int = NATIVE, is_distilled: bool = False, **config: Any) -> Krea2Pipeline:
    """A whole stock pipeline with 12 text tokens, five of which close the template; native 0: as it is published."""
    torch.manual_seed(0)
    transformer = Krea2Transformer2DModel(**{**CONFIG, **config}).eval()
    tokenizer = words_tokenizer()
    vae = AutoencoderKLQwenImage(base_dim=8, num_res_blocks=1)
    if native:
        vae.register_to_config(sample_size=native)
    scheduler = FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True,
        base_shift=0.5,
        max_shift=1.15,
        base_image_seq_len=256,
        max_image_seq_len=6400,
    )
    return Krea2Pipeline(
        scheduler=scheduler,
        vae=vae.eval(),
        text_encoder=_encoder(len(tokenizer)).eval(),
        tokenizer=tokenizer,
        transformer=transformer,
        text_encoder_select_layers=(0, 1, 2),
        is_distilled=is_distilled,
    )


def words_tokenizer() -> PreTrainedTokenizerFast:
    """Words of the pipeline's chat template whole, so that it has the 34 tokens that are dropped, and all other words
    letter by letter."""
    special = ["<|im_start|>", "<|im_end|>", "<|endoftext|>"]
    template = (
        "system Describe the image by detailing the color shape size texture quantity text spatial relationships of "
        "objects and background user assistant"
    )
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    tokens = [
        "[UNK]",
        "\n",
        *":,.",
        *dict.fromkeys(template.split()),
        *letters,
        *(f"##{one}" for one in letters),
    ]
    vocabulary = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"\n|\w+|[^\w\s]"), "removed", invert=True)
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in special])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<|endoftext|>", model_max_length=TEXT_TOKENS
    )


def _encoder(num_tokens: int) -> Qwen3VLModel:
    text = {
        "vocab_size": num_tokens,
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "rope_scaling": {"rope_type": "default", "mrope_section": [2, 3, 3], "mrope_interleaved": True},
    }
    vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 1, "out_hidden_size": 32}
    vision |= {"num_position_embeddings": 4, "deepstack_visual_indexes": [0]}
    return Qwen3VLModel(Qwen3VLConfig(text_config=text, vision_config=vision))

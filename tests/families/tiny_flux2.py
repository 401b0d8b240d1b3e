"""FLUX.2 of toy width with random weights: dev with Mistral, klein with Qwen3."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import (
    AutoencoderKLFlux2,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Pipeline,
    Flux2Transformer2DModel,
)
from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers
from transformers import (
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

TEXT_TOKENS = 8
WIDTH = 16
"""Of a text encoder; three of its layers are text embeddings."""
CONFIG = {
    "num_layers": 1,
    "num_single_layers": 1,
    "num_attention_heads": 1,
    "joint_attention_dim": 3 * WIDTH,
    "timestep_guidance_channels": 32,
}
"""Axes and theta are the real ones."""

LANGUAGE = {
    "hidden_size": WIDTH,
    "intermediate_size": 16,
    "num_attention_heads": 1,
    "num_key_value_heads": 1,
    "head_dim": 16,
}


def klein(*, native: int = 64, is_distilled: bool = False, **config: Any) -> Flux2KleinPipeline:
    """A whole stock pipeline with 8 text tokens, four of which are the template's."""
    torch.manual_seed(0)
    tokenizer = letter_tokenizer("[U]{{ messages[0]['content'] }}[E][A]")
    layers = {"num_hidden_layers": 27, "vocab_size": len(tokenizer)}
    return Flux2KleinPipeline(
        **_parts(native, guidance_embeds=False, **config),
        text_encoder=Qwen3ForCausalLM(Qwen3Config(**LANGUAGE, **layers)).eval(),
        tokenizer=tokenizer,
        is_distilled=is_distilled,
    )


def dev(*, native: int = 64, **config: Any) -> Flux2Pipeline:
    """The same. Its processor of text and pictures is replaced by the tokenizer that it would hold, since pictures are
    for references alone, and its template leaves the system's message out, which is longer than all of the text."""
    torch.manual_seed(0)
    tokenizer = letter_tokenizer("[U]{{ messages[-1]['content'][0]['text'] }}[E]")
    text = {"model_type": "mistral", "num_hidden_layers": 30, "vocab_size": len(tokenizer), **LANGUAGE}
    vision = {"model_type": "pixtral", "num_hidden_layers": 1, "num_attention_heads": 1, "head_dim": 16}
    vision |= {"hidden_size": 16, "intermediate_size": 16, "image_size": 28}
    encoder = Mistral3ForConditionalGeneration(Mistral3Config(text_config=text, vision_config=vision))
    return Flux2Pipeline(
        **_parts(native, guidance_embeds=True, **config), text_encoder=encoder.eval(), tokenizer=tokenizer
    )


def _parts(native: int, **config: Any) -> dict[str, Any]:
    transformer = Flux2Transformer2DModel(**{**CONFIG, **config}).eval()
    vae = AutoencoderKLFlux2(
        block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=2, sample_size=native
    )
    vae.bn.running_mean.normal_(std=0.3)
    vae.bn.running_var.uniform_(0.5, 2.0)
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)
    return {"transformer": transformer, "vae": vae.eval(), "scheduler": scheduler}


def letter_tokenizer(template: str, num_tokens: int = TEXT_TOKENS) -> PreTrainedTokenizerFast:
    """A token for each letter."""
    special = ["[PAD]", "[U]", "[E]", "[A]"]
    vocabulary = {
        token: index for index, token in enumerate(["[UNK]", *"abcdefghijklmnopqrstuvwxyz0123456789"])
    }
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"\w"), "removed", invert=True)
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in special])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        model_max_length=num_tokens,
        chat_template=template,
    )

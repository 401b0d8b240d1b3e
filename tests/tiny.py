"""Text encoders for the tiny pipeline of conftest.py, and small captioned images: what caching and training
need."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from diffusers import FluxPipeline
from PIL import Image
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer, T5Config, T5EncoderModel, T5Tokenizer

LETTERS = "abcdefghijklmnopqrstuvwxyz"
TEXT_TOKENS = 8


def with_text_encoders(pipe: FluxPipeline, *, text_tokens: int = TEXT_TOKENS) -> FluxPipeline:
    """The pipeline with CLIP and T5 of toy width: 8 text tokens, one a letter."""
    torch.manual_seed(1)
    clip, t5 = _clip_tokenizer(), t5_tokenizer(text_tokens)
    pipe.register_modules(
        tokenizer=clip, tokenizer_2=t5, text_encoder=_clip(clip).eval(), text_encoder_2=t5_encoder(t5).eval()
    )
    return pipe


def write_images(folder: Path, sizes: list[tuple[int, int]], *, seed: int = 0) -> Path:
    """Images of these sizes (px), each a smooth random pattern with two captions beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for index, size in enumerate(sizes):
        coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        coarse.resize(size, Image.Resampling.BICUBIC).save(folder / f"{index:02d}.png")
        captions = {
            "prompt": f"{LETTERS[index]}",
            "generated_prompt": f"{LETTERS[index]} {LETTERS[index + 1]}",
        }
        (folder / f"{index:02d}.json").write_text(json.dumps(captions))
    return folder


def _clip_tokenizer() -> CLIPTokenizer:
    tokens = [*LETTERS, *(letter + "</w>" for letter in LETTERS), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={t: i for i, t in enumerate(tokens)}, merges=[], model_max_length=77)


def t5_tokenizer(text_tokens: int = TEXT_TOKENS) -> T5Tokenizer:
    pieces = [
        ("<pad>", 0.0),
        ("</s>", 0.0),
        ("<unk>", 0.0),
        ("▁", -2.0),
        *((letter, -3.0) for letter in LETTERS),
    ]
    return T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=text_tokens)


def _clip(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=24,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=77,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.eos_token_id,
    )
    return CLIPTextModel(config)


def t5_encoder(tokenizer: T5Tokenizer) -> T5EncoderModel:
    config = T5Config(
        vocab_size=len(tokenizer), d_model=32, d_kv=16, d_ff=32, num_layers=1, num_heads=2, dropout_rate=0.0
    )
    return T5EncoderModel(config)

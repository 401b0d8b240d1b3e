"""Krea 2's text: twelve layers of Qwen3-VL at each token (`prompt_embeds`), and which tokens count
(`prompt_embeds_mask`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from urae.families.flux.text import check_encoders
from urae.families.identity import fingerprint

__all__ = ["Krea2Text"]

MOST_TOKENS = 512
"""What the model was trained with, and the pipeline's default."""


@dataclass(frozen=True)
class Krea2Text:
    """Prompts are padded in the middle of a chat template to one length; the mask leaves the padding out."""

    encoders: tuple[str, ...] = ("text_encoder",)
    tokenizers: tuple[str, ...] = ("tokenizer",)

    @torch.no_grad()
    def encode(self, pipe: Any, prompts: Sequence[str]) -> dict[str, Tensor]:
        """`prompt_embeds` (B, T, layers, C) in the encoder's type and `prompt_embeds_mask` (B, T), bool; longer
        prompts are cut, as in the pipeline."""
        check_encoders(pipe, len(prompts))
        tokens, mask = pipe.encode_prompt(
            list(prompts), device=pipe.text_encoder.device, max_sequence_length=self.num_tokens(pipe)
        )
        return {"prompt_embeds": tokens.cpu(), "prompt_embeds_mask": mask.cpu()}

    def num_tokens(self, pipe: Any) -> int:
        """512, padding included; less where the tokenizer takes less, as a miniature's may."""
        if pipe.tokenizer is None:
            raise ValueError(
                "the pipeline has no tokenizer, which tells the number of text tokens: load it with one"
            )
        return min(MOST_TOKENS, int(pipe.tokenizer.model_max_length))

    def identity(self, pipe: Any) -> str:
        if pipe.text_encoder is None:
            return ""
        layers = tuple(pipe.config.text_encoder_select_layers)
        vocabulary = sorted(pipe.tokenizer.get_vocab().items())
        return fingerprint([pipe.text_encoder], also=f"{self.num_tokens(pipe)} {layers} {vocabulary}")

    def num_values(self, pipe: Any) -> int:
        config = pipe.transformer.config
        return int(self.num_tokens(pipe) * (config.num_text_layers * config.text_hidden_dim + 1))

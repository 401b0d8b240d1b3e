"""FLUX.2's text: `prompt_embeds`, three layers of a language model side by side at each token; Mistral for dev, Qwen3
for klein. Prompts are padded to one length, and the padding is attended to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from urae.families.flux.text import check_encoders
from urae.families.identity import fingerprint

__all__ = ["Flux2Text"]

MOST = 512
"""Text tokens that the stock pipelines pad to by themselves."""


@dataclass(frozen=True)
class Flux2Text:
    """One encoder, by the pipeline's own chat template and layers."""

    encoders: tuple[str, ...] = ("text_encoder",)
    tokenizers: tuple[str, ...] = ("tokenizer",)

    @torch.no_grad()
    def encode(self, pipe: Any, prompts: Sequence[str]) -> dict[str, Tensor]:
        """`prompt_embeds` (B, T, 3 C) in the encoder's type; longer prompts are cut, as in the pipeline."""
        check_encoders(pipe, len(prompts))
        tokens, _ = pipe.encode_prompt(
            list(prompts), device=pipe.text_encoder.device, max_sequence_length=self.num_tokens(pipe)
        )
        return {"prompt_embeds": tokens.cpu()}

    def num_tokens(self, pipe: Any) -> int:
        """512, padding included; less where the tokenizer takes less, as a miniature's may."""
        if pipe.tokenizer is None:
            raise ValueError(
                "the pipeline has no tokenizer, which tells the number of text tokens: load it with one"
            )
        return min(MOST, int(_tokenizer(pipe).model_max_length))

    def identity(self, pipe: Any) -> str:
        if pipe.text_encoder is None:
            return ""
        tokenizer = _tokenizer(pipe)
        template = f"{pipe.tokenizer.chat_template} {getattr(pipe, 'system_message', '')}"
        vocabulary = sorted(tokenizer.get_vocab().items())
        return fingerprint([pipe.text_encoder], also=f"{self.num_tokens(pipe)} {template} {vocabulary}")

    def num_values(self, pipe: Any) -> int:
        return self.num_tokens(pipe) * int(pipe.transformer.config.joint_attention_dim)


def _tokenizer(pipe: Any) -> Any:
    """Dev has one inside a processor, which takes pictures too."""
    return getattr(pipe.tokenizer, "tokenizer", pipe.tokenizer)

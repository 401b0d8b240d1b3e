"""FLUX.2's text: `prompt_embeds`, three layers of a language model side by side at each token; Mistral for dev, Qwen3
for klein. Prompts are padded to one length, and the padding is attended to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from urae.families.text import OneEncoder, check_encoders

__all__ = ["Flux2Text"]


@dataclass(frozen=True)
class Flux2Text(OneEncoder):
    """One encoder, by the pipeline's own chat template and layers."""

    @torch.no_grad()
    def encode(self, pipe: Any, prompts: Sequence[str]) -> dict[str, Tensor]:
        """`prompt_embeds` (B, T, 3 C) in the encoder's type; longer prompts are cut, as in the pipeline."""
        check_encoders(pipe, len(prompts))
        tokens, _ = pipe.encode_prompt(
            list(prompts), device=pipe.text_encoder.device, max_sequence_length=self.num_tokens(pipe)
        )
        return {"prompt_embeds": tokens.cpu()}

    def tokenizer(self, pipe: Any) -> Any:
        """Dev has one inside a processor, which takes pictures too."""
        return getattr(pipe.tokenizer, "tokenizer", pipe.tokenizer)

    def template(self, pipe: Any) -> tuple[Any, ...]:
        return pipe.tokenizer.chat_template, getattr(pipe, "system_message", "")

    def num_values(self, pipe: Any) -> int:
        return self.num_tokens(pipe) * int(pipe.transformer.config.joint_attention_dim)

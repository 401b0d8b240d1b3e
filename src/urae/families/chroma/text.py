"""Chroma's text: `prompt_embeds` of T5, and the `prompt_attention_mask` that says which of its tokens are padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from urae.families.text import OneEncoder, check_encoders

__all__ = ["ChromaText"]


@dataclass(frozen=True)
class ChromaText(OneEncoder):
    """T5 alone. The mask keeps a prompt's tokens and one of padding, in the type in which the pipeline makes it."""

    @torch.no_grad()
    def encode(self, pipe: Any, prompts: Sequence[str]) -> dict[str, Tensor]:
        """`prompt_embeds` (B, T, C) and `prompt_attention_mask` (B, T) of zeros and ones, in the encoder's type. Longer
        prompts are cut at T, as in the pipeline."""
        check_encoders(pipe, len(prompts))
        tokens, _, mask, *_ = pipe.encode_prompt(
            list(prompts),
            device=pipe.text_encoder.device,
            do_classifier_free_guidance=False,
            max_sequence_length=self.num_tokens(pipe),
        )
        return {"prompt_embeds": tokens.cpu(), "prompt_attention_mask": mask.cpu()}

    def num_values(self, pipe: Any) -> int:
        return self.num_tokens(pipe) * (pipe.transformer.config.joint_attention_dim + 1)

"""Qwen-Image's text: the last layer of Qwen2.5-VL at each token (`prompt_embeds`), and which tokens there are
(`prompt_embeds_mask`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from urae.families.family import Embeddings
from urae.families.text import OneEncoder, check_encoders

__all__ = ["QwenImageText", "trimmed"]


@dataclass(frozen=True)
class QwenImageText(OneEncoder):
    """One encoder, in the pipeline's own template. The pipeline pads to the longest prompt of a call."""

    @torch.no_grad()
    def encode(self, pipe: Any, prompts: Sequence[str]) -> dict[str, Tensor]:
        """`prompt_embeds` (B, T, C) in the encoder's type, zero where `prompt_embeds_mask` (B, T) is False; longer
        prompts are cut, as in the pipeline."""
        check_encoders(pipe, len(prompts))
        most = self.num_tokens(pipe)
        tokens, mask = pipe.encode_prompt(
            list(prompts), device=pipe.text_encoder.device, max_sequence_length=most
        )
        given = torch.ones(tokens.shape[:2], dtype=torch.bool) if mask is None else mask.bool().cpu()
        missing = most - tokens.shape[1]
        return {
            "prompt_embeds": F.pad(tokens.cpu(), (0, 0, 0, missing)),
            "prompt_embeds_mask": F.pad(given, (0, missing)),
        }

    def template(self, pipe: Any) -> tuple[Any, ...]:
        return (pipe.prompt_template_encode,)

    def num_values(self, pipe: Any) -> int:
        return self.num_tokens(pipe) * (int(pipe.transformer.config.joint_attention_dim) + 1)


def trimmed(embeddings: Embeddings) -> tuple[Tensor, Tensor | None]:
    """The text up to the end of the longest, and the mask where the others are shorter, as the pipeline has them."""
    text, mask = embeddings["prompt_embeds"], embeddings["prompt_embeds_mask"].bool()
    longest = int(mask.sum(dim=1).max())
    mask = mask[:, :longest]
    return text[:, :longest], None if bool(mask.all()) else mask

"""Krea 2's text: twelve layers of Qwen3-VL at each token (`prompt_embeds`), and which tokens count
(`prompt_embeds_mask`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from urae.families.text import OneEncoder, check_encoders

__all__ = ["Krea2Text"]


@dataclass(frozen=True)
class Krea2Text(OneEncoder):
    """Prompts are padded in the middle of a chat template to one length; the mask leaves the padding out."""

    @torch.no_grad()
    def encode(self, pipe: Any, prompts: Sequence[str]) -> dict[str, Tensor]:
        """`prompt_embeds` (B, T, layers, C) in the encoder's type and `prompt_embeds_mask` (B, T), bool; longer
        prompts are cut, as in the pipeline."""
        check_encoders(pipe, len(prompts))
        tokens, mask = pipe.encode_prompt(
            list(prompts), device=pipe.text_encoder.device, max_sequence_length=self.num_tokens(pipe)
        )
        return {"prompt_embeds": tokens.cpu(), "prompt_embeds_mask": mask.cpu()}

    def template(self, pipe: Any) -> tuple[Any, ...]:
        return (tuple(pipe.config.text_encoder_select_layers),)

    def num_values(self, pipe: Any) -> int:
        config = pipe.transformer.config
        return int(self.num_tokens(pipe) * (config.num_text_layers * config.text_hidden_dim + 1))

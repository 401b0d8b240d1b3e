"""Z-Image's text: the last but one layer of Qwen3 at each token (`prompt_embeds`), and which tokens there are
(`prompt_embeds_mask`). The pipeline has a list of tensors without padding, and so has the transformer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from urae.families.family import Embeddings
from urae.families.text import OneEncoder, check_encoders

__all__ = ["ZImageText", "ragged"]


@dataclass(frozen=True)
class ZImageText(OneEncoder):
    """One encoder, by the pipeline's own chat template."""

    @torch.no_grad()
    def encode(self, pipe: Any, prompts: Sequence[str]) -> dict[str, Tensor]:
        """`prompt_embeds` (B, T, C) in the encoder's type, zero where `prompt_embeds_mask` (B, T) is False; longer
        prompts are cut, as in the pipeline."""
        check_encoders(pipe, len(prompts))
        most = self.num_tokens(pipe)
        found, _ = pipe.encode_prompt(
            list(prompts),
            device=pipe.text_encoder.device,
            do_classifier_free_guidance=False,
            max_sequence_length=most,
        )
        tokens = torch.stack(
            [torch.cat([one, one.new_zeros(most - len(one), one.shape[1])]) for one in found]
        )
        lengths = torch.tensor([len(one) for one in found])
        return {
            "prompt_embeds": tokens.cpu(),
            "prompt_embeds_mask": torch.arange(most) < lengths[:, None],
        }

    def template(self, pipe: Any) -> tuple[Any, ...]:
        return (pipe.tokenizer.chat_template,)

    def num_values(self, pipe: Any) -> int:
        return self.num_tokens(pipe) * (int(pipe.transformer.config.cap_feat_dim) + 1)


def ragged(embeddings: Embeddings) -> list[Tensor]:
    """The text of each prompt by itself, (tokens, C), without padding."""
    pairs = zip(embeddings["prompt_embeds"], embeddings["prompt_embeds_mask"], strict=True)
    return [tokens[mask.to(tokens.device, torch.bool)] for tokens, mask in pairs]

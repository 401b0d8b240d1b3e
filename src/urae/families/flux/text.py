"""FLUX.1's text: `prompt_embeds` of T5 and `pooled_prompt_embeds` of CLIP."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from urae.families.identity import fingerprint
from urae.families.text import check_encoders

__all__ = ["FluxText"]


@dataclass(frozen=True)
class FluxText:
    """Two encoders; T5's tokens are attended to, CLIP's vector modulates."""

    encoders: tuple[str, ...] = ("text_encoder", "text_encoder_2")
    tokenizers: tuple[str, ...] = ("tokenizer", "tokenizer_2")

    @torch.no_grad()
    def encode(self, pipe: Any, prompts: Sequence[str]) -> dict[str, Tensor]:
        """`prompt_embeds` (B, T, C) and `pooled_prompt_embeds` (B, D), in the encoders' types. T is the tokenizer's
        length (512 for FLUX.1-dev); longer prompts are cut there, as in the pipeline, which says so."""
        check_encoders(pipe, len(prompts))
        with _without_clips_end(type(pipe).__module__):
            tokens, pooled, _ = pipe.encode_prompt(
                list(prompts),
                None,
                device=pipe.text_encoder.device,
                max_sequence_length=self.num_tokens(pipe),
            )
        return {"prompt_embeds": tokens.cpu(), "pooled_prompt_embeds": pooled.cpu()}

    def num_tokens(self, pipe: Any) -> int:
        """512 for FLUX.1-dev, 32 for the miniature."""
        if pipe.tokenizer_2 is None:
            raise ValueError(
                "the pipeline has no tokenizer_2, which tells the number of text tokens: load it with one"
            )
        return int(pipe.tokenizer_2.model_max_length)

    def identity(self, pipe: Any) -> str:
        if pipe.text_encoder is None:
            return ""
        vocabularies = [
            sorted(tokenizer.get_vocab().items()) for tokenizer in (pipe.tokenizer, pipe.tokenizer_2)
        ]
        return fingerprint(
            [pipe.text_encoder, pipe.text_encoder_2], also=f"{self.num_tokens(pipe)} {vocabularies}"
        )

    def num_values(self, pipe: Any) -> int:
        config = pipe.transformer.config
        return self.num_tokens(pipe) * config.joint_attention_dim + config.pooled_projection_dim


@contextmanager
def _without_clips_end(pipeline: str) -> Iterator[None]:
    """Nothing said of where CLIP stops reading: its vector stands for the first 77 tokens of a prompt by design, T5
    reads the whole, and detailed captions would give thousands of such lines."""

    def is_news(record: logging.LogRecord) -> bool:
        return "CLIP can only handle" not in record.getMessage()

    logger = logging.getLogger(pipeline)
    logger.addFilter(is_news)
    try:
        yield
    finally:
        logger.removeFilter(is_news)

"""What the families' `text.py` share: most of them have one encoder and one tokenizer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from urae.families.identity import fingerprint

__all__ = ["MOST", "OneEncoder", "check_encoders"]

MOST = 512
"""Text tokens that the stock pipelines take at most by themselves."""


@dataclass(frozen=True)
class OneEncoder:
    """One encoder, fed by one tokenizer."""

    encoders: tuple[str, ...] = ("text_encoder",)
    tokenizers: tuple[str, ...] = ("tokenizer",)

    def num_tokens(self, pipe: Any) -> int:
        """512; less where the tokenizer takes less, as a miniature's may."""
        if pipe.tokenizer is None:
            raise ValueError(
                "the pipeline has no tokenizer, which tells the number of text tokens: load it with one"
            )
        return min(MOST, int(self.tokenizer(pipe).model_max_length))

    def identity(self, pipe: Any) -> str:
        if pipe.text_encoder is None:
            return ""
        vocabulary = sorted(self.tokenizer(pipe).get_vocab().items())
        parts = [self.num_tokens(pipe), *self.template(pipe), vocabulary]
        return fingerprint([pipe.text_encoder], also=" ".join(map(str, parts)))

    def tokenizer(self, pipe: Any) -> Any:
        return pipe.tokenizer

    def template(self, pipe: Any) -> tuple[Any, ...]:
        """What stands around a prompt, or is taken of the encoder's states, beside what the tokenizer says."""
        return ()


def check_encoders(pipe: Any, num_prompts: int) -> None:
    """Raise ValueError for a pipeline that was loaded without its text encoders."""
    if pipe.text_encoder is None:
        raise ValueError(
            f"this {type(pipe).__name__} has no text encoders to encode {num_prompts} prompts with: "
            "load it with its text encoders, or use data whose embeddings are cached"
        )

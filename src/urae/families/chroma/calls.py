"""One call of Chroma's transformer: FLUX.1's without a pooled vector and guidance, with a mask of the tokens.

The stock pipeline's mask consists of numbers, 1 for a prompt's tokens, the first token of padding and the image, 0 for
the rest of the padding. Attention adds it to the logits, so padding is weakened by a factor of e and not left out. A
boolean mask would leave it out, and change pictures, least with long prompts (huggingface/diffusers, issue 12116). What
people see of Chroma comes from the stock pipeline, so training shows the transformer the same mask in the same type:
whatever `Text.encode` had from the pipeline, extended over the image by the pipeline's own operation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.utils import extract_model_from_parallel
from diffusers.models.transformers.transformer_chroma import ChromaSingleTransformerBlock
from torch import Tensor

from urae.families.family import Embeddings
from urae.families.flux.calls import FluxCalls, image_ids
from urae.families.flux.guidance import check_unguided
from urae.families.flux.latents import FluxLatents

__all__ = ["ChromaCalls"]

LATENTS = FluxLatents()


@dataclass(frozen=True)
class ChromaCalls(FluxCalls):
    """As FLUX.1's; `attention_mask` (B, text + image tokens) goes with the text."""

    of_each_image: tuple[str, ...] = ("encoder_hidden_states", "timestep", "attention_mask")

    def velocity(
        self,
        transformer: Any,
        noisy: Tensor,
        *,
        sigma: Tensor,
        embeddings: Embeddings,
        guidance: float | None = None,
    ) -> Tensor:
        check_unguided(guidance, "Chroma")
        height, width = noisy.shape[-2:]
        dtype = transformer.dtype
        text = embeddings["prompt_embeds"].to(noisy.device, dtype)
        tokens = LATENTS.pack(noisy).to(dtype)
        mask = _over_image(_typed(embeddings["prompt_attention_mask"], text), tokens.shape[1])
        with _mask_kept(transformer, mask):
            velocity = transformer(
                hidden_states=tokens,
                timestep=sigma.to(noisy.device),
                encoder_hidden_states=text,
                txt_ids=torch.zeros(text.shape[1], 3, device=noisy.device),
                img_ids=image_ids(height, width, device=noisy.device),
                attention_mask=mask,
                return_dict=False,
            )[0]
        return LATENTS.unpack(velocity.float(), height, width)

    def with_latents(self, inputs: Mapping[str, Any], latents: Tensor) -> dict[str, Any]:
        changed = super().with_latents(inputs, latents)
        num = changed["hidden_states"].shape[1]
        return changed | _masked(changed, lambda mask: _over_image(mask, num))

    def with_text_at(self, inputs: Mapping[str, Any], places: Sequence[tuple[int, int]]) -> dict[str, Any]:
        num = inputs["hidden_states"].shape[1]
        changed = super().with_text_at(inputs, places)
        return changed | _masked(inputs, lambda mask: _over_image(mask.repeat(1, len(places)), num))


def _masked(inputs: Mapping[str, Any], change: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    """The input `attention_mask` as `change` makes it from that of the text; none where there is none."""
    if inputs.get("attention_mask") is None:
        return {}
    return {"attention_mask": change(inputs["attention_mask"][:, : inputs["encoder_hidden_states"].shape[1]])}


def _over_image(text: Tensor, num_tokens: int) -> Tensor:
    """The mask (B, T) of text and of that many image tokens, by the pipeline's operation."""
    image = torch.ones(text.shape[0], num_tokens, device=text.device, dtype=torch.bool)
    return torch.cat([text, image], dim=1)


def _typed(mask: Tensor, like: Tensor) -> Tensor:
    """Numbers in the type of what they are added to; truth values stay what they are."""
    return mask.to(like.device, like.dtype if mask.is_floating_point() else mask.dtype)


@contextmanager
def _mask_kept(transformer: Any, mask: Tensor) -> Iterator[None]:
    """Have gradient checkpointing give the mask to single blocks too: the stock forward leaves it out there, so that
    what is trained would not be what is drawn."""
    model = extract_model_from_parallel(transformer, keep_torch_compile=False)
    if not model.gradient_checkpointing:
        yield
        return
    checkpointed = model._gradient_checkpointing_func

    def with_mask(block: Any, *inputs: Any) -> Any:
        lacks = isinstance(block, ChromaSingleTransformerBlock) and len(inputs) == 3
        return checkpointed(block, *inputs, *([mask] if lacks else []))

    model._gradient_checkpointing_func = with_mask
    try:
        yield
    finally:
        model._gradient_checkpointing_func = checkpointed

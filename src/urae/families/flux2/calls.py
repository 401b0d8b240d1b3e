"""One call of FLUX.2's transformer: text and image by themselves, each with positions in whole numbers. There is no
pooled vector and no mask: padding is attended to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import Flux2Pipeline
from torch import Tensor

from urae.families.family import Embeddings
from urae.families.flux.calls import FluxCalls, repeated
from urae.families.flux.guidance import FluxGuidance
from urae.families.flux2.latents import PATCH, Flux2Latents

__all__ = ["Flux2Calls"]

LATENTS = Flux2Latents()


@dataclass(frozen=True)
class Flux2Calls(FluxCalls):
    """Latents as tokens, `img_ids` beside them, text with ids that count its tokens."""

    of_each_image: tuple[str, ...] = ("encoder_hidden_states", "timestep", "guidance")

    def velocity(
        self,
        transformer: Any,
        noisy: Tensor,
        *,
        sigma: Tensor,
        embeddings: Embeddings,
        guidance: float | None = None,
    ) -> Tensor:
        height, width = noisy.shape[-2:]
        dtype = transformer.dtype  # looked up once: it walks through all modules
        text = embeddings["prompt_embeds"].to(noisy.device, dtype)
        tokens = transformer(
            hidden_states=LATENTS.pack(noisy).to(dtype),
            encoder_hidden_states=text,
            timestep=sigma.to(noisy.device),
            img_ids=_image_ids(noisy),
            txt_ids=_text_ids(text),
            guidance=FluxGuidance().input(transformer, guidance, noisy),
            return_dict=False,
        )[0]
        return LATENTS.unpack(tokens.float(), height, width)

    def with_latents(self, inputs: Mapping[str, Any], latents: Tensor) -> dict[str, Any]:
        given = repeated(inputs, self.of_each_image, latents.shape[0] // inputs["hidden_states"].shape[0])
        return {**inputs, **given, "hidden_states": LATENTS.pack(latents), "img_ids": _image_ids(latents)}

    def with_text_at(self, inputs: Mapping[str, Any], places: Sequence[tuple[int, int]]) -> dict[str, Any]:
        """Each copy on the row and column of its place, and counted from 0 like the text itself."""
        text, ids = inputs["encoder_hidden_states"], inputs["txt_ids"]
        offsets = ids.new_tensor([(0, *place, 0) for place in places])
        return {
            **inputs,
            "encoder_hidden_states": text.repeat(1, len(places), 1),
            "txt_ids": (offsets[:, None] + ids[:1]).flatten(0, 1)[None],
        }


def _image_ids(latents: Tensor) -> Tensor:
    """Positions (1, H W / 4, 4) of the tokens of latents (B, C, H, W)."""
    with torch.device(latents.device):  # else they are made on the CPU, and the GPU waits for their copy
        return Flux2Pipeline._prepare_latent_ids(latents[:1, :, ::PATCH, ::PATCH])


def _text_ids(text: Tensor) -> Tensor:
    """Positions (1, T, 4) of text embeddings (B, T, C)."""
    with torch.device(text.device):
        return Flux2Pipeline._prepare_text_ids(text[:1])

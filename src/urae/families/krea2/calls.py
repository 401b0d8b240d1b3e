"""One call of Krea 2's transformer: text in front of the image in one sequence, with one list of positions and a mask
of the text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import Krea2Pipeline
from torch import Tensor

from urae.families.family import Embeddings
from urae.families.flux.calls import FluxCalls, repeated
from urae.families.flux.guidance import check_unguided
from urae.families.krea2.latents import PATCH, Krea2Latents

__all__ = ["Krea2Calls"]

LATENTS = Krea2Latents()


@dataclass(frozen=True)
class Krea2Calls(FluxCalls):
    """Latents as tokens; `position_ids` are those of the text, zeros, and then those of the image."""

    of_each_image: tuple[str, ...] = ("encoder_hidden_states", "encoder_attention_mask", "timestep")
    """Inputs that hold one entry for each image, beside the latents."""

    def velocity(
        self,
        transformer: Any,
        noisy: Tensor,
        *,
        sigma: Tensor,
        embeddings: Embeddings,
        guidance: float | None = None,
    ) -> Tensor:
        check_unguided(guidance, "Krea 2")
        height, width = noisy.shape[-2:]
        dtype = transformer.dtype  # looked up once: it walks through all modules
        text = embeddings["prompt_embeds"].to(noisy.device, dtype)
        tokens = transformer(
            hidden_states=LATENTS.pack(noisy).to(dtype),
            encoder_hidden_states=text,
            timestep=sigma.to(noisy.device),
            position_ids=_positions(text.shape[1], height, width, noisy.device),
            encoder_attention_mask=embeddings["prompt_embeds_mask"].to(noisy.device, torch.bool),
            return_dict=False,
        )[0]
        return LATENTS.unpack(tokens.float(), height, width)

    def with_latents(self, inputs: Mapping[str, Any], latents: Tensor) -> dict[str, Any]:
        tokens, num_text = inputs["hidden_states"], inputs["encoder_hidden_states"].shape[1]
        height, width = latents.shape[-2:]
        given = repeated(inputs, self.of_each_image, latents.shape[0] // tokens.shape[0])
        image = _positions(0, height, width, tokens.device)
        positions = torch.cat([inputs["position_ids"][:num_text].float(), image])
        return {**inputs, **given, "hidden_states": LATENTS.pack(latents), "position_ids": positions}

    def with_text_at(self, inputs: Mapping[str, Any], places: Sequence[tuple[int, int]]) -> dict[str, Any]:
        """Exact: the blocks that refine the text know no positions, and attend to equal copies as to one."""
        text, mask = inputs["encoder_hidden_states"], inputs.get("encoder_attention_mask")
        of_text, of_image = inputs["position_ids"].tensor_split([text.shape[1]])
        offsets = of_text.new_tensor([(0, *place) for place in places])
        return {
            **inputs,
            "encoder_hidden_states": text.repeat(1, len(places), 1, 1),
            "encoder_attention_mask": None if mask is None else mask.repeat(1, len(places)),
            "position_ids": torch.cat([(offsets[:, None] + of_text[None]).flatten(0, 1), of_image]),
        }


def _positions(num_text: int, height: int, width: int, device: torch.device) -> Tensor:
    """Positions (tokens, 3) of so much text and of latents of this height and width, fp32."""
    return Krea2Pipeline.prepare_position_ids(num_text, height // PATCH, width // PATCH, device)

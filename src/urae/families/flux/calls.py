"""One call of FLUX.1's transformer. Position ids are always made in fp32, because bf16 cannot tell positions above 256
(4096 px) apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import FluxPipeline
from torch import Tensor

from urae.families.family import Embeddings
from urae.families.flux.guidance import FluxGuidance
from urae.families.flux.latents import PATCH, FluxLatents
from urae.families.flux.rotary import exact_grid

__all__ = ["FluxCalls", "image_ids", "repeated"]

LATENTS = FluxLatents()


@dataclass(frozen=True)
class FluxCalls:
    """Latents as tokens, `img_ids` beside them, text with ids of zeros."""

    of_each_image: tuple[str, ...] = ("encoder_hidden_states", "pooled_projections", "timestep", "guidance")
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
        height, width = noisy.shape[-2:]
        dtype = transformer.dtype  # looked up once: it walks through all modules
        text = embeddings["prompt_embeds"].to(noisy.device, dtype)
        tokens = transformer(
            hidden_states=LATENTS.pack(noisy).to(dtype),
            timestep=sigma.to(noisy.device),
            guidance=FluxGuidance().input(transformer, guidance, noisy),
            pooled_projections=embeddings["pooled_prompt_embeds"].to(noisy.device, dtype),
            encoder_hidden_states=text,
            txt_ids=torch.zeros(text.shape[1], 3, device=noisy.device),
            img_ids=image_ids(height, width, device=noisy.device),
            return_dict=False,
        )[0]
        return LATENTS.unpack(tokens.float(), height, width)

    def sigma(self, inputs: Mapping[str, Any]) -> Tensor:
        return inputs["timestep"]

    def latents(self, inputs: Mapping[str, Any], height: int, width: int) -> Tensor:
        return LATENTS.unpack(inputs["hidden_states"], height, width)

    def num_image_tokens(self, inputs: Mapping[str, Any]) -> int:
        num, tokens, _ = inputs["hidden_states"].shape
        return int(num * tokens)

    def velocity_in(self, output: Any, height: int, width: int) -> Tensor:
        return LATENTS.unpack(output, height, width)

    def as_output(self, velocity: Tensor) -> Any:
        return LATENTS.pack(velocity)

    def with_latents(self, inputs: Mapping[str, Any], latents: Tensor) -> dict[str, Any]:
        tokens = inputs["hidden_states"]
        given = repeated(inputs, self.of_each_image, latents.shape[0] // tokens.shape[0])
        ids = image_ids(*latents.shape[-2:], device=tokens.device)
        return {**inputs, **given, "hidden_states": LATENTS.pack(latents), "img_ids": ids}

    def with_text_at(self, inputs: Mapping[str, Any], places: Sequence[tuple[int, int]]) -> dict[str, Any]:
        text, ids = inputs["encoder_hidden_states"], inputs["txt_ids"].float()
        offsets = torch.tensor([(0, *place) for place in places], device=ids.device, dtype=ids.dtype)
        return {
            **inputs,
            "encoder_hidden_states": text.repeat(1, len(places), 1),
            "txt_ids": (offsets[:, None] + ids[None]).flatten(0, 1),
            # Here, because beside such text ids no policy could recognise the rounded grid.
            "img_ids": exact_grid(inputs["img_ids"]),
        }


def image_ids(height: int, width: int, *, device: torch.device | str = "cpu") -> Tensor:
    """Position ids (H W / 4, 3) of the tokens of latents of this height and width, fp32."""
    with torch.device(device):  # else they are made on the CPU, and the GPU waits for their copy
        return FluxPipeline._prepare_latent_image_ids(
            1, height // PATCH, width // PATCH, device, torch.float32
        )


def repeated(inputs: Mapping[str, Any], names: Sequence[str], times: int) -> dict[str, Tensor]:
    """Of the inputs under these names those that are given, once for each of `times` latents of an image."""
    given = {name: inputs[name] for name in names if inputs.get(name) is not None}
    return {name: value.repeat(times, *[1] * (value.ndim - 1)) for name, value in given.items()}

"""One call of Qwen-Image's transformer: latents as tokens with their shape beside them, text with a mask where texts
differ in length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from urae.families.family import Embeddings
from urae.families.flux.calls import FluxCalls, repeated
from urae.families.flux.guidance import check_unguided
from urae.families.qwen_image.latents import PATCH, QwenImageLatents
from urae.families.qwen_image.text import trimmed

__all__ = ["QwenImageCalls"]

LATENTS = QwenImageLatents()


@dataclass(frozen=True)
class QwenImageCalls(FluxCalls):
    """`img_shapes` has (1, rows, columns) for each image."""

    of_each_image: tuple[str, ...] = (
        "encoder_hidden_states",
        "encoder_hidden_states_mask",
        "timestep",
        "guidance",
    )

    def velocity(
        self,
        transformer: Any,
        noisy: Tensor,
        *,
        sigma: Tensor,
        embeddings: Embeddings,
        guidance: float | None = None,
    ) -> Tensor:
        check_unguided(guidance, "Qwen-Image")
        height, width = noisy.shape[-2:]
        dtype = transformer.dtype  # looked up once: it walks through all modules
        text, mask = trimmed(embeddings)
        tokens = transformer(
            hidden_states=LATENTS.pack(noisy).to(dtype),
            timestep=sigma.to(noisy.device),
            encoder_hidden_states=text.to(noisy.device, dtype),
            encoder_hidden_states_mask=None if mask is None else mask.to(noisy.device),
            img_shapes=_shapes(noisy),
            return_dict=False,
        )[0]
        return LATENTS.unpack(tokens.float(), height, width)

    def with_latents(self, inputs: Mapping[str, Any], latents: Tensor) -> dict[str, Any]:
        given = repeated(inputs, self.of_each_image, latents.shape[0] // inputs["hidden_states"].shape[0])
        return {**inputs, **given, "hidden_states": LATENTS.pack(latents), "img_shapes": _shapes(latents)}

    def with_text_at(self, inputs: Mapping[str, Any], places: Sequence[tuple[int, int]]) -> dict[str, Any]:
        raise ValueError(
            "the text of Qwen-Image stands beyond the image's corner, where its transformer puts it: leave "
            "repeat_text out"
        )


def _shapes(latents: Tensor) -> list[list[tuple[int, int, int]]]:
    """Of the tokens of latents (B, C, H, W), as the pipeline gives them."""
    num, _, height, width = latents.shape
    return [[(1, height // PATCH, width // PATCH)]] * num

"""One call of Z-Image's transformer: lists of latents and of text, which it cuts into tokens and pads to multiples of
32 by itself. Its time runs from noise to picture, t = 1 - sigma, and so does its velocity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from urae.families.family import Embeddings
from urae.families.flux.guidance import check_unguided
from urae.families.z_image.latents import PATCH
from urae.families.z_image.text import ragged

__all__ = ["ZImageCalls"]


@dataclass(frozen=True)
class ZImageCalls:
    """`x` is a list of (C, 1, H, W), `cap_feats` one of (tokens, C), `t` (B,)."""

    def velocity(
        self,
        transformer: Any,
        noisy: Tensor,
        *,
        sigma: Tensor,
        embeddings: Embeddings,
        guidance: float | None = None,
    ) -> Tensor:
        check_unguided(guidance, "Z-Image")
        dtype = transformer.dtype  # looked up once: it walks through all modules
        output = transformer(
            x=_frames(noisy.to(dtype)),
            t=1 - sigma.to(noisy.device),
            cap_feats=[text.to(noisy.device, dtype) for text in ragged(embeddings)],
            return_dict=False,
        )[0]
        return self.velocity_in(output, *noisy.shape[-2:]).float()

    def sigma(self, inputs: Mapping[str, Any]) -> Tensor:
        return 1 - inputs["t"]

    def latents(self, inputs: Mapping[str, Any], height: int, width: int) -> Tensor:
        return torch.stack(list(inputs["x"])).squeeze(2)

    def num_image_tokens(self, inputs: Mapping[str, Any]) -> int:
        return sum(frame.shape[-2] * frame.shape[-1] // PATCH**2 for frame in inputs["x"])

    def velocity_in(self, output: Any, height: int, width: int) -> Tensor:
        return -torch.stack(list(output)).squeeze(2)

    def as_output(self, velocity: Tensor) -> Any:
        return _frames(-velocity)

    def with_latents(self, inputs: Mapping[str, Any], latents: Tensor) -> dict[str, Any]:
        times = latents.shape[0] // len(inputs["x"])
        return {
            **inputs,
            "x": _frames(latents),
            "t": inputs["t"].repeat(times),
            "cap_feats": list(inputs["cap_feats"]) * times,
        }

    def with_text_at(self, inputs: Mapping[str, Any], places: Sequence[tuple[int, int]]) -> dict[str, Any]:
        raise ValueError(
            "the text of Z-Image stands on an axis of its own, where its transformer puts it: leave repeat_text out"
        )


def _frames(latents: Tensor) -> list[Tensor]:
    """Latents (B, C, H, W) as the transformer takes and returns them."""
    return list(latents.unsqueeze(2).unbind(0))

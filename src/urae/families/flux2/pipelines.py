"""FLUX.2's stock pipelines, and the configurations of its published models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from PIL import Image

from urae.families.family import Drawing, Guidance, Text
from urae.families.flux.guidance import FluxGuidance
from urae.families.flux.pipelines import FluxPipelines
from urae.families.flux2.guidance import Flux2Guidance
from urae.families.flux2.latents import PATCH, Flux2Latents
from urae.families.flux2.text import Flux2Text
from urae.families.krea2.pipelines import noised

__all__ = ["Flux2Pipelines"]

VAE = {"_class_name": "AutoencoderKLFlux2"}

KLEIN = {
    "4B": {"num_layers": 5, "num_single_layers": 20, "num_attention_heads": 24, "joint_attention_dim": 7680},
    "9B": {"num_layers": 8, "num_single_layers": 24, "num_attention_heads": 32, "joint_attention_dim": 12288},
}

ENCODERS = {"4B": 4_022_468_096, "9B": 8_190_735_360, "dev": 24_011_361_280}
"""Numbers in Qwen3-4B, Qwen3-8B and Mistral-Small-3.2-24B."""


def _published() -> dict[str, Any]:
    parts = {"vae": VAE, "text_tokens": 512}
    found = {}
    for size, transformer in KLEIN.items():
        klein = parts | {
            "transformer": transformer | {"guidance_embeds": False},
            "encoder_values": ENCODERS[size],
        }
        found[f"black-forest-labs/FLUX.2-klein-base-{size}"] = klein
        found[f"black-forest-labs/FLUX.2-klein-{size}"] = klein | {"pipeline": {"is_distilled": True}}
    dev = parts | {"transformer": {"guidance_embeds": True}, "encoder_values": ENCODERS["dev"]}
    return {"black-forest-labs/FLUX.2-dev": dev, **found}


@dataclass(frozen=True)
class Flux2Pipelines(FluxPipelines):
    """Text to image alone: the pictures that its pipelines take are references. So a picture is redrawn by the same
    pipeline, from its noised latents on."""

    from_text: str = "Flux2Pipeline"
    from_picture: str = ""
    inpaint: str = ""
    transformer: str = "Flux2Transformer2DModel"
    published: Mapping[str, Mapping[str, Any]] = field(default_factory=_published)
    text: Text = Flux2Text()
    guidance: Guidance = Flux2Guidance()

    def pipeline(self, index: Mapping[str, Any]) -> str:
        """Klein's has another text encoder than dev's."""
        encoder = (index.get("text_encoder") or [None, None])[1]
        return "Flux2KleinPipeline" if str(encoder).startswith("Qwen") else self.from_text

    def draw(self, pipe: Any, drawing: Drawing, **more: Any) -> Image.Image:
        if "latents" in more:  # which it takes as a map of tokens
            height, width = (side // PATCH for side in Flux2Latents().shape(pipe, drawing.size))
            more["latents"] = more["latents"].transpose(1, 2).unflatten(2, (height, width))
        return super().draw(pipe, drawing, **more)

    def redraw(
        self,
        pipe: Any,
        drawing: Drawing,
        picture: Image.Image,
        *,
        sigmas: Any,
        start_sigma: float,
        **region: Any,
    ) -> Image.Image:
        assert not region  # which nobody asks for where `inpaint` is empty
        latents = noised(Flux2Latents(), pipe, drawing, picture, start_sigma)
        return self.draw(pipe, drawing, latents=latents, sigmas=sigmas)

    def _guided(self, pipe: Any, drawing: Drawing) -> dict[str, Any]:
        kind = self.guidance.kind(pipe)
        if kind == "embedded":
            return FluxGuidance().settings(drawing)
        # A distilled checkpoint takes no guidance, whatever the scale.
        settings = self.guidance.settings(replace(drawing, guidance=1.0) if kind == "none" else drawing)
        if "negative_prompt" in settings:  # which klein's pipeline takes as embeddings alone
            negative = self.text.encode(pipe, [settings.pop("negative_prompt")])
            settings |= {
                f"negative_{name}": value.to(pipe._execution_device) for name, value in negative.items()
            }
        return settings

"""FLUX.1's stock pipelines, and the configurations of its published models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import diffusers
from PIL import Image

from urae.families.family import Drawing, Embeddings, Guidance, Text
from urae.families.flux.guidance import FluxGuidance
from urae.families.flux.text import FluxText

__all__ = ["T5_VALUES", "VAE", "FluxPipelines"]

VAE = {
    "_class_name": "AutoencoderKL",
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "block_out_channels": [128, 256, 512, 512],
    "layers_per_block": 2,
    "latent_channels": 16,
    "sample_size": 1024,
    "shift_factor": 0.1159,
    "scaling_factor": 0.3611,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
}

T5_VALUES = 4_762_310_656
"""Numbers in the T5-XXL encoder."""

ENCODERS = T5_VALUES + 123_060_480
"""The same with those in CLIP-L's text model."""


def _published() -> dict[str, Any]:
    return {
        "black-forest-labs/FLUX.1-dev": {
            "transformer": {"guidance_embeds": True},
            "vae": VAE,
            "text_tokens": 512,
            "encoder_values": ENCODERS,
        },
        "black-forest-labs/FLUX.1-schnell": {
            "transformer": {"guidance_embeds": False},
            "vae": VAE,
            "text_tokens": 256,
            "encoder_values": ENCODERS,
        },
    }


@dataclass(frozen=True)
class FluxPipelines:
    """Text to image, and image to image around the same parts."""

    from_text: str = "FluxPipeline"
    """Name of the text-to-image class in diffusers."""
    from_picture: str = "FluxImg2ImgPipeline"
    """Name of the image-to-image class in diffusers."""
    inpaint: str = "FluxInpaintPipeline"
    """Name of the class in diffusers that redraws a region; empty where there is none."""
    transformer: str = "FluxTransformer2DModel"
    published: Mapping[str, Mapping[str, Any]] = field(default_factory=_published)
    text: Text = FluxText()
    guidance: Guidance = FluxGuidance()

    def pipeline(self, index: Mapping[str, Any]) -> str:
        return self.from_text

    def draw(self, pipe: Any, drawing: Drawing, **more: Any) -> Image.Image:
        return pipe(**self._arguments(pipe, drawing), **more).images[0]

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
        kind, inputs = (self.inpaint, {"mask_image": region["mask"]}) if region else (self.from_picture, {})
        other = getattr(diffusers, kind)(**pipe.components)
        other.set_progress_bar_config(**getattr(pipe, "_progress_bar_config", {}))
        # strength 1: of the schedule given, which begins at the start sigma
        inputs |= self._arguments(pipe, drawing)
        return other(image=picture, strength=1.0, sigmas=sigmas, **inputs).images[0]

    def _arguments(self, pipe: Any, drawing: Drawing) -> dict[str, Any]:
        width, height = drawing.size
        return {
            **self._prompt(pipe, drawing.prompt),
            **self._guided(pipe, drawing),
            "width": width,
            "height": height,
            "num_inference_steps": drawing.steps,
            **drawing.settings,
        }

    def _guided(self, pipe: Any, drawing: Drawing) -> dict[str, Any]:
        return self.guidance.settings(drawing)

    def _prompt(self, pipe: Any, prompt: str | Embeddings) -> dict[str, Any]:
        if not isinstance(prompt, str):
            return dict(prompt)
        return {"prompt": prompt, "max_sequence_length": self.text.num_tokens(pipe)}

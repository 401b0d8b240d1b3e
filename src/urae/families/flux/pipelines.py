"""FLUX.1's stock pipelines, and the configurations of its published models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from diffusers import FluxImg2ImgPipeline
from PIL import Image

from urae.families.family import Drawing, Embeddings
from urae.families.flux.guidance import FluxGuidance
from urae.families.flux.text import FluxText

__all__ = ["FluxPipelines", "arguments"]

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

ENCODERS = 4_762_310_656 + 123_060_480
"""Numbers in the T5-XXL encoder and in CLIP-L's text model."""


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

    pipeline: str = "FluxPipeline"
    transformer: str = "FluxTransformer2DModel"
    published: Mapping[str, Mapping[str, Any]] = field(default_factory=_published)

    def draw(self, pipe: Any, drawing: Drawing, **more: Any) -> Image.Image:
        return pipe(**arguments(pipe, drawing), **more).images[0]

    def redraw(
        self, pipe: Any, drawing: Drawing, picture: Image.Image, *, sigmas: Any, start_sigma: float
    ) -> Image.Image:
        other = FluxImg2ImgPipeline(**pipe.components)
        other.set_progress_bar_config(**getattr(pipe, "_progress_bar_config", {}))
        # strength 1: of the schedule given, which begins at the start sigma
        return other(image=picture, strength=1.0, sigmas=sigmas, **arguments(pipe, drawing)).images[0]


def arguments(pipe: Any, drawing: Drawing) -> dict[str, Any]:
    """What a call of a stock FLUX pipeline takes for a drawing, text-to-image or image-to-image."""
    width, height = drawing.size
    return {
        **_prompt(pipe, drawing.prompt),
        **FluxGuidance().settings(drawing),
        "width": width,
        "height": height,
        "num_inference_steps": drawing.steps,
        **drawing.settings,
    }


def _prompt(pipe: Any, prompt: str | Embeddings) -> dict[str, Any]:
    if not isinstance(prompt, str):
        return dict(prompt)
    return {"prompt": prompt, "max_sequence_length": FluxText().num_tokens(pipe)}

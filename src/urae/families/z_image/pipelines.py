"""Z-Image's stock pipelines, and the configurations of its published models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from urae.families.family import Drawing, Embeddings, Guidance, Text
from urae.families.flux.pipelines import VAE, FluxPipelines
from urae.families.z_image.guidance import ZImageGuidance, is_distilled
from urae.families.z_image.text import ZImageText, ragged

__all__ = ["ZImagePipelines"]

ENCODER = 4_022_468_096
"""Numbers in Qwen3-4B."""


def _published() -> dict[str, Any]:
    base = {"transformer": {}, "vae": VAE, "text_tokens": 512, "encoder_values": ENCODER}
    return {
        "Tongyi-MAI/Z-Image": base,
        "Tongyi-MAI/Z-Image-Turbo": base | {"pipeline": {"is_distilled": True}},
    }


@dataclass(frozen=True)
class ZImagePipelines(FluxPipelines):
    """Called as FLUX.1's, with text as lists."""

    from_text: str = "ZImagePipeline"
    from_picture: str = "ZImageImg2ImgPipeline"
    inpaint: str = "ZImageInpaintPipeline"
    transformer: str = "ZImageTransformer2DModel"
    published: Mapping[str, Mapping[str, Any]] = field(default_factory=_published)
    text: Text = ZImageText()
    guidance: Guidance = ZImageGuidance()

    def _guided(self, pipe: Any, drawing: Drawing) -> dict[str, Any]:
        # A distilled checkpoint takes no guidance, whatever the scale.
        drawing = replace(drawing, guidance=1.0) if is_distilled(pipe) else drawing
        settings = self.guidance.settings(drawing)
        if drawing.guidance <= 1:
            return settings
        negative = drawing.negative
        if isinstance(negative, str):
            if isinstance(drawing.prompt, str):
                return settings
            negative = self.text.encode(pipe, [negative])  # beside embeddings the pipeline takes no words
        return {
            "guidance_scale": settings["guidance_scale"],
            "negative_prompt_embeds": _there(pipe, negative),
        }

    def _prompt(self, pipe: Any, prompt: str | Embeddings) -> dict[str, Any]:
        if isinstance(prompt, str):
            return super()._prompt(pipe, prompt)
        return {"prompt_embeds": _there(pipe, prompt)}


def _there(pipe: Any, text: Embeddings) -> list[Any]:
    """Embeddings as the pipeline takes them, where it computes."""
    return [tokens.to(pipe._execution_device) for tokens in ragged(text)]

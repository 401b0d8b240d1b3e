"""Chroma's stock pipelines, and the configurations of its published models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from urae.families.chroma.guidance import ChromaGuidance
from urae.families.chroma.text import ChromaText
from urae.families.family import Embeddings, Guidance, Text
from urae.families.flux.pipelines import T5_VALUES, VAE, FluxPipelines

__all__ = ["ChromaPipelines"]


def _published() -> dict[str, Any]:
    parts = {"transformer": {}, "vae": VAE, "text_tokens": 512, "encoder_values": T5_VALUES}
    return {f"lodestones/{name}": parts for name in ("Chroma1-HD", "Chroma1-Base", "Chroma1-Flash")}


@dataclass(frozen=True)
class ChromaPipelines(FluxPipelines):
    """Called as FLUX.1's, with text and guidance of their own."""

    from_text: str = "ChromaPipeline"
    from_picture: str = "ChromaImg2ImgPipeline"
    inpaint: str = "ChromaInpaintPipeline"
    transformer: str = "ChromaTransformer2DModel"
    published: Mapping[str, Mapping[str, Any]] = field(default_factory=_published)
    text: Text = ChromaText()
    guidance: Guidance = ChromaGuidance()

    def _prompt(self, pipe: Any, prompt: str | Embeddings) -> dict[str, Any]:
        if isinstance(prompt, str):
            return super()._prompt(pipe, prompt)
        # Else the pipeline would make a negative prompt, where that is text, 512 tokens long.
        return {**prompt, "max_sequence_length": prompt["prompt_embeds"].shape[1]}

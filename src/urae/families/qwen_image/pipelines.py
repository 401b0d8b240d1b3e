"""Qwen-Image's stock pipelines, and the configurations of its published models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from urae.families.family import Drawing, Embeddings, Guidance, Text
from urae.families.flux.pipelines import FluxPipelines
from urae.families.qwen_image.guidance import QwenImageGuidance
from urae.families.qwen_image.text import QwenImageText, trimmed

__all__ = ["QwenImagePipelines"]

ENCODER = 8_292_166_656
"""Numbers in Qwen2.5-VL-7B."""


def _published() -> dict[str, Any]:
    parts = {
        "transformer": {},
        "vae": {"_class_name": "AutoencoderKLQwenImage"},
        "text_tokens": 512,
        "encoder_values": ENCODER,
    }
    return {"Qwen/Qwen-Image": parts, "Qwen/Qwen-Image-2512": parts}


@dataclass(frozen=True)
class QwenImagePipelines(FluxPipelines):
    """Called as FLUX.1's, with a mask beside the text."""

    from_text: str = "QwenImagePipeline"
    from_picture: str = "QwenImageImg2ImgPipeline"
    inpaint: str = "QwenImageInpaintPipeline"
    transformer: str = "QwenImageTransformer2DModel"
    published: Mapping[str, Mapping[str, Any]] = field(default_factory=_published)
    text: Text = QwenImageText()
    guidance: Guidance = QwenImageGuidance()

    def draw(self, pipe: Any, drawing: Drawing, **more: Any) -> Image.Image:
        """`ValueError` for a single step of a schedule that is to end elsewhere than it begins: stock diffusers divides
        zero by zero there, and the picture is black."""
        if drawing.steps == 1 and "sigmas" not in more and pipe.scheduler.config.get("shift_terminal"):
            raise ValueError(
                "steps is 1, but the scheduler stretches its noise levels from 1 to "
                f"{pipe.scheduler.config.shift_terminal:g}, which takes 2 or more: set steps, or draw under a policy, "
                "which stretches nothing"
            )
        return super().draw(pipe, drawing, **more)

    def _guided(self, pipe: Any, drawing: Drawing) -> dict[str, Any]:
        settings = self.guidance.settings(drawing)
        if drawing.guidance <= 1 or isinstance(drawing.negative, str):
            return settings
        return {"true_cfg_scale": drawing.guidance, **_given(pipe, drawing.negative, "negative_")}

    def _prompt(self, pipe: Any, prompt: str | Embeddings) -> dict[str, Any]:
        if isinstance(prompt, str):
            return super()._prompt(pipe, prompt)
        # The limit is for a negative prompt in words.
        return {**_given(pipe, prompt, ""), "max_sequence_length": prompt["prompt_embeds"].shape[1]}


def _given(pipe: Any, text: Embeddings, prefix: str) -> dict[str, Any]:
    """Embeddings as the pipeline takes them, where it computes."""
    tokens, _ = trimmed(text)
    mask = text["prompt_embeds_mask"][:, : tokens.shape[1]]
    pairs = {"prompt_embeds": tokens, "prompt_embeds_mask": mask}
    return {f"{prefix}{name}": tensor.to(pipe._execution_device) for name, tensor in pairs.items()}

"""Krea 2's stock pipeline, and the configurations of its published models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from PIL import Image

from urae.families.chroma.pipelines import ChromaPipelines
from urae.families.family import Drawing, Guidance, Latents, Text
from urae.families.krea2.guidance import Krea2Guidance, is_distilled
from urae.families.krea2.latents import Krea2Latents
from urae.families.krea2.text import Krea2Text

__all__ = ["Krea2Pipelines", "noised"]

ENCODER = 4_437_815_808
"""Numbers in Qwen3-VL-4B without its output layer, which is tied to its input."""


def _published() -> dict[str, Any]:
    parts = {
        "transformer": {},
        "vae": {"_class_name": "AutoencoderKLQwenImage"},
        "text_tokens": 512,
        "encoder_values": ENCODER,
    }
    return {"krea/Krea-2-Raw": parts, "krea/Krea-2-Turbo": parts | {"pipeline": {"is_distilled": True}}}


@dataclass(frozen=True)
class Krea2Pipelines(ChromaPipelines):
    """Called as Chroma's, but for text to image alone: a picture is redrawn by the same pipeline, from its noised
    latents on."""

    from_text: str = "Krea2Pipeline"
    from_picture: str = ""
    inpaint: str = ""
    transformer: str = "Krea2Transformer2DModel"
    published: Mapping[str, Mapping[str, Any]] = field(default_factory=_published)
    text: Text = Krea2Text()
    guidance: Guidance = Krea2Guidance()

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
        latents = noised(Krea2Latents(), pipe, drawing, picture, start_sigma)
        return self.draw(pipe, drawing, latents=latents, sigmas=sigmas)

    def _guided(self, pipe: Any, drawing: Drawing) -> dict[str, Any]:
        # A distilled checkpoint takes no guidance, whatever the scale.
        return self.guidance.settings(replace(drawing, guidance=1.0) if is_distilled(pipe) else drawing)


def noised(latents: Latents, pipe: Any, drawing: Drawing, picture: Image.Image, sigma: float) -> torch.Tensor:
    """(1 - sigma) clean + sigma noise, packed: the picture's latents, and the noise that the pipeline would start
    with."""
    pixels = torch.from_numpy(np.asarray(picture.convert("RGB"), dtype=np.float32) / 127.5 - 1)
    clean = latents.pack(latents.encode(pipe, pixels.permute(2, 0, 1)[None]).mean)
    noise = latents.noise(pipe, drawing.size, drawing.settings.get("generator"))
    return ((1 - sigma) * clean.to(noise.device) + sigma * noise.float()).to(noise.dtype)

"""Qwen-Image's guidance: classifier-free, by a second call. Its pipeline then gives each token of the guided velocity
the length that the prompt's own had."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from urae.families.chroma.guidance import ChromaGuidance
from urae.families.family import Drawing

__all__ = ["QwenImageGuidance"]


@dataclass(frozen=True)
class QwenImageGuidance(ChromaGuidance):
    """The scale is the pipeline's `true_cfg_scale`."""

    def usual(self, target: Any, published: float) -> float:
        return 4.0  # its pipeline's own

    def settings(self, drawing: Drawing) -> dict[str, Any]:
        settings = super().settings(drawing)
        return {"true_cfg_scale": settings.pop("guidance_scale"), **settings}

"""Chroma's guidance: classifier-free, by a second call of the transformer with a negative prompt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from urae.families.family import Drawing, Guiding

__all__ = ["ChromaGuidance"]


@dataclass(frozen=True)
class ChromaGuidance:
    """v(negative) + scale (v(prompt) - v(negative)); at a scale of 1 or less the pipeline makes the one call alone."""

    def kind(self, target: Any) -> Guiding:
        return "cfg"

    def usual(self, target: Any, published: float) -> float:
        return 5.0  # its pipeline's own

    def settings(self, drawing: Drawing) -> dict[str, Any]:
        scale, negative = drawing.guidance, drawing.negative
        if scale <= 1:
            if negative:
                raise ValueError(
                    f"a negative prompt has no effect at guidance {scale:g}: leave it out, or set guidance above 1"
                )
            return {"guidance_scale": scale}
        if isinstance(negative, str):
            return {"guidance_scale": scale, "negative_prompt": negative}
        return {"guidance_scale": scale} | {f"negative_{name}": value for name, value in negative.items()}

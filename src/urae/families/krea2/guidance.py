"""Krea 2's guidance: classifier-free, as Chroma's. Its pipeline calls a scale of 1 + s "s"; here the scale is the usual
one, at which 1 is none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from urae.families.chroma.guidance import ChromaGuidance
from urae.families.family import Drawing, Guiding

__all__ = ["Krea2Guidance", "is_distilled"]


@dataclass(frozen=True)
class Krea2Guidance(ChromaGuidance):
    """Turbo, which is distilled, takes none; only its pipeline tells it from Raw."""

    def kind(self, target: Any) -> Guiding:
        return "none" if is_distilled(target) else "cfg"

    def usual(self, target: Any, published: float) -> float:
        return 1.0 if is_distilled(target) else 5.5  # its pipeline's own, which calls it 4.5

    def settings(self, drawing: Drawing) -> dict[str, Any]:
        return super().settings(drawing) | {"guidance_scale": max(drawing.guidance - 1, 0.0)}


def is_distilled(target: Any) -> bool:
    """Whether this pipeline is of a checkpoint like Turbo; a transformer alone does not know."""
    return bool(target.config.get("is_distilled", False))

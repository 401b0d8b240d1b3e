"""FLUX.2's guidance: an input of dev's transformer; a second call with a negative prompt for klein base; none for
klein, which is distilled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from urae.families.chroma.guidance import ChromaGuidance
from urae.families.family import Guiding
from urae.families.krea2.guidance import is_distilled

__all__ = ["Flux2Guidance"]


@dataclass(frozen=True)
class Flux2Guidance(ChromaGuidance):
    """Only the pipeline tells klein from klein base; a transformer alone is taken for base's."""

    def kind(self, target: Any) -> Guiding:
        if getattr(target, "transformer", target).config.guidance_embeds:
            return "embedded"
        return "none" if is_distilled(target) else "cfg"

    def usual(self, target: Any, published: float) -> float:
        return 1.0 if self.kind(target) == "none" else 4.0  # both pipelines' own

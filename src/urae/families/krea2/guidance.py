"""Krea 2's guidance: a second call with a negative prompt. Its pipeline calls a scale of 1 + s "s"; here the scale is
the usual one, at which 1 is none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from urae.families.family import Drawing, Guiding

__all__ = ["Krea2Guidance", "is_distilled"]


@dataclass(frozen=True)
class Krea2Guidance:
    """Turbo, which is distilled, takes none; only a pipeline tells it from Raw."""

    def kind(self, target: Any) -> Guiding:
        return "none" if is_distilled(target) else "cfg"

    def settings(self, drawing: Drawing) -> dict[str, Any]:
        if drawing.guidance < 1:
            raise ValueError(f"guidance is {drawing.guidance}: expected 1, which is none, or more")
        if drawing.guidance == 1 and drawing.negative:
            raise ValueError(
                f"negative prompt {drawing.negative!r} has no effect at guidance 1: leave it out, or raise the guidance"
            )
        scale = {"guidance_scale": drawing.guidance - 1}
        return scale if drawing.guidance == 1 else {**scale, **_negative(drawing)}


def is_distilled(target: Any) -> bool:
    """Whether this pipeline is of a checkpoint like Turbo; a transformer alone does not know."""
    return bool(target.config.get("is_distilled", False))


def _negative(drawing: Drawing) -> dict[str, Any]:
    if isinstance(drawing.negative, str):
        return {"negative_prompt": drawing.negative}
    return {f"negative_{name}": tensor for name, tensor in drawing.negative.items()}

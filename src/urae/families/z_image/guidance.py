"""Z-Image's guidance: classifier-free, both prompts in one call of the transformer. Its pipeline calls a scale of 1 + s
"s", as Krea 2's does; here the scale is the usual one, at which 1 is none."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from urae.families.family import Guiding
from urae.families.krea2.guidance import Krea2Guidance

__all__ = ["ZImageGuidance", "is_distilled"]


@dataclass(frozen=True)
class ZImageGuidance(Krea2Guidance):
    """Turbo, which is distilled, takes none."""

    def kind(self, target: Any) -> Guiding:
        return "none" if is_distilled(target) else "cfg"

    def usual(self, target: Any, published: float) -> float:
        return 1.0 if is_distilled(target) else 6.0  # its pipeline's own, which calls it 5


def is_distilled(target: Any) -> bool:
    """Whether this pipeline is of Turbo, or of a fine-tune that is called so: nothing else in a checkpoint tells it
    from the base, whose configuration is the same. A transformer alone does not know."""
    config = target.config
    name = Path(str(config.get("_name_or_path") or "")).name
    return bool(config.get("is_distilled", False)) or "turbo" in name.lower()

"""FLUX.1's guidance: the scale is an input of the transformer of FLUX.1-dev; schnell takes none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from urae.families.family import Drawing, Guiding

__all__ = ["FluxGuidance", "check_unguided"]


@dataclass(frozen=True)
class FluxGuidance:
    """Embedded where the checkpoint was distilled for it."""

    def kind(self, target: Any) -> Guiding:
        transformer = getattr(target, "transformer", target)
        return "embedded" if transformer.config.guidance_embeds else "none"

    def usual(self, target: Any, published: float) -> float:
        return published

    def settings(self, drawing: Drawing) -> dict[str, Any]:
        if drawing.negative:
            raise ValueError(
                f"negative prompt {drawing.negative!r} has no effect: the model is guided by a scale alone; leave it "
                "out"
            )
        return {"guidance_scale": drawing.guidance}

    def input(self, transformer: Any, guidance: float | None, like: Tensor) -> Tensor | None:
        """The transformer's `guidance` (B,) for latents like these; `ValueError` where it is lacking or has no
        effect."""
        if (self.kind(transformer) == "embedded") == (guidance is not None):
            if guidance is None:
                return None
            return like.new_full((like.shape[0],), guidance, dtype=torch.float32)
        if guidance is None:
            raise ValueError("this transformer is guidance-distilled: give guidance, 1.0 for none")
        raise ValueError(
            f"guidance={guidance} has no effect: this transformer takes no guidance; leave it out"
        )


def check_unguided(guidance: float | None, name: str) -> None:
    """Raise ValueError for a scale given to the transformer of a family that is guided by a second call."""
    if guidance is not None:
        raise ValueError(
            f"guidance={guidance} has no effect: {name} is guided by a second call, not by an input; leave it out"
        )

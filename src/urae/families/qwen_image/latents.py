"""Qwen-Image's latents: those of Krea 2, which has them from it, at another native size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from urae.families.krea2.latents import PATCH, Krea2Latents

__all__ = ["NATIVE", "PATCH", "QwenImageLatents"]

NATIVE = 1328
"""Side in pixels: 83 tokens. The largest of the sizes that its authors name is 1664 x 928, of the same area."""


@dataclass(frozen=True)
class QwenImageLatents(Krea2Latents):
    """Its own VAE, five dimensions of which one is time."""

    def native_size(self, pipe: Any) -> int:
        """1328. The stock configuration does not say it; a model of another size has `sample_size` in its VAE's, as
        FLUX.1 has."""
        return int(pipe.vae.config.get("sample_size", NATIVE))

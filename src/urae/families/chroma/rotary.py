"""Chroma's rotary positions: FLUX.1's class, text at (0, 0, 0), rounded by the pipeline in the same way."""

from urae.families.flux.rotary import FluxRotary as ChromaRotary

__all__ = ["ChromaRotary"]

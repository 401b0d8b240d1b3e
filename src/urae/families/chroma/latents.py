"""Chroma's latents: FLUX.1's VAE and packing."""

from urae.families.flux.latents import FluxLatents as ChromaLatents

__all__ = ["ChromaLatents"]

"""Chroma's timestep shift: FLUX.1's formula, or static where the checkpoint's scheduler says so."""

from urae.families.flux.schedule import FluxSchedule as ChromaSchedule

__all__ = ["ChromaSchedule"]

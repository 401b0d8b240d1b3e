"""Chroma: Chroma1-HD, Chroma1-Base and checkpoints of their architecture, which is FLUX.1's without CLIP and without
layers for modulation."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

from urae.families.chroma.calls import ChromaCalls
from urae.families.chroma.guidance import ChromaGuidance
from urae.families.chroma.latents import ChromaLatents
from urae.families.chroma.layers import ChromaLayers
from urae.families.chroma.names import NAMES
from urae.families.chroma.pipelines import ChromaPipelines
from urae.families.chroma.rotary import ChromaRotary
from urae.families.chroma.schedule import ChromaSchedule
from urae.families.chroma.text import ChromaText
from urae.families.family import ModuleNames

__all__ = ["Chroma"]

# diffusers says this of its own transformer, whenever one is made.
warnings.filterwarnings("ignore", message="`FluxPosEmbed` is deprecated", category=FutureWarning)


@dataclass(frozen=True, kw_only=True)
class Chroma:
    """The parts of the contract (`urae.families.family.Family`)."""

    name: str = "Chroma"
    rotary: ChromaRotary = ChromaRotary()
    calls: ChromaCalls = ChromaCalls()
    latents: ChromaLatents = ChromaLatents()
    text: ChromaText = ChromaText()
    guidance: ChromaGuidance = ChromaGuidance()
    schedule: ChromaSchedule = ChromaSchedule()
    layers: ChromaLayers = ChromaLayers()
    names: ModuleNames = NAMES
    pipelines: ChromaPipelines = ChromaPipelines()

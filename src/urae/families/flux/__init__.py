"""FLUX.1: FLUX.1-dev, FLUX.1-schnell and checkpoints of their architecture."""

from __future__ import annotations

from dataclasses import dataclass

from urae.families.family import ModuleNames
from urae.families.flux.calls import FluxCalls
from urae.families.flux.guidance import FluxGuidance
from urae.families.flux.latents import FluxLatents
from urae.families.flux.layers import FluxLayers
from urae.families.flux.names import NAMES
from urae.families.flux.pipelines import FluxPipelines
from urae.families.flux.rotary import FluxRotary
from urae.families.flux.schedule import FluxSchedule
from urae.families.flux.text import FluxText

__all__ = ["Flux"]


@dataclass(frozen=True, kw_only=True)
class Flux:
    """The parts of the contract (`urae.families.family.Family`)."""

    name: str = "FLUX.1"
    rotary: FluxRotary = FluxRotary()
    calls: FluxCalls = FluxCalls()
    latents: FluxLatents = FluxLatents()
    text: FluxText = FluxText()
    guidance: FluxGuidance = FluxGuidance()
    schedule: FluxSchedule = FluxSchedule()
    layers: FluxLayers = FluxLayers()
    names: ModuleNames = NAMES
    pipelines: FluxPipelines = FluxPipelines()

"""FLUX.2: dev, which embeds the guidance scale; klein base, which is guided by a second call; klein, which is distilled
to a few steps without guidance."""

from __future__ import annotations

from dataclasses import dataclass

from urae.families.family import ModuleNames
from urae.families.flux2.calls import Flux2Calls
from urae.families.flux2.guidance import Flux2Guidance
from urae.families.flux2.latents import Flux2Latents
from urae.families.flux2.layers import Flux2Layers
from urae.families.flux2.names import NAMES
from urae.families.flux2.pipelines import Flux2Pipelines
from urae.families.flux2.rotary import Flux2Rotary
from urae.families.flux2.schedule import Flux2Schedule
from urae.families.flux2.text import Flux2Text

__all__ = ["Flux2"]


@dataclass(frozen=True, kw_only=True)
class Flux2:
    """The parts of the contract (`urae.families.family.Family`)."""

    name: str = "FLUX.2"
    rotary: Flux2Rotary = Flux2Rotary()
    calls: Flux2Calls = Flux2Calls()
    latents: Flux2Latents = Flux2Latents()
    text: Flux2Text = Flux2Text()
    guidance: Flux2Guidance = Flux2Guidance()
    schedule: Flux2Schedule = Flux2Schedule()
    layers: Flux2Layers = Flux2Layers()
    names: ModuleNames = NAMES
    pipelines: Flux2Pipelines = Flux2Pipelines()

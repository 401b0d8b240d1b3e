"""Krea 2: Raw, which is trained on, and Turbo, which is distilled from it."""

from __future__ import annotations

from dataclasses import dataclass

from urae.families.family import ModuleNames
from urae.families.krea2.calls import Krea2Calls
from urae.families.krea2.guidance import Krea2Guidance
from urae.families.krea2.latents import Krea2Latents
from urae.families.krea2.layers import Krea2Layers
from urae.families.krea2.names import NAMES
from urae.families.krea2.pipelines import Krea2Pipelines
from urae.families.krea2.rotary import Krea2Rotary
from urae.families.krea2.schedule import Krea2Schedule
from urae.families.krea2.text import Krea2Text

__all__ = ["Krea2"]


@dataclass(frozen=True, kw_only=True)
class Krea2:
    """The parts of the contract (`urae.families.family.Family`)."""

    name: str = "Krea 2"
    rotary: Krea2Rotary = Krea2Rotary()
    calls: Krea2Calls = Krea2Calls()
    latents: Krea2Latents = Krea2Latents()
    text: Krea2Text = Krea2Text()
    guidance: Krea2Guidance = Krea2Guidance()
    schedule: Krea2Schedule = Krea2Schedule()
    layers: Krea2Layers = Krea2Layers()
    names: ModuleNames = NAMES
    pipelines: Krea2Pipelines = Krea2Pipelines()

"""Z-Image: the base, which is guided by a second prompt, and Turbo, which is distilled from it."""

from __future__ import annotations

from dataclasses import dataclass

from urae.families.family import ModuleNames
from urae.families.z_image.calls import ZImageCalls
from urae.families.z_image.guidance import ZImageGuidance
from urae.families.z_image.latents import ZImageLatents
from urae.families.z_image.layers import ZImageLayers
from urae.families.z_image.names import NAMES
from urae.families.z_image.pipelines import ZImagePipelines
from urae.families.z_image.rotary import ZImageRotary
from urae.families.z_image.schedule import ZImageSchedule
from urae.families.z_image.text import ZImageText

__all__ = ["ZImage"]


@dataclass(frozen=True, kw_only=True)
class ZImage:
    """The parts of the contract (`urae.families.family.Family`)."""

    name: str = "Z-Image"
    rotary: ZImageRotary = ZImageRotary()
    calls: ZImageCalls = ZImageCalls()
    latents: ZImageLatents = ZImageLatents()
    text: ZImageText = ZImageText()
    guidance: ZImageGuidance = ZImageGuidance()
    schedule: ZImageSchedule = ZImageSchedule()
    layers: ZImageLayers = ZImageLayers()
    names: ModuleNames = NAMES
    pipelines: ZImagePipelines = ZImagePipelines()

"""Qwen-Image: two streams from the first block to the last, and text with positions that move with the image's size."""

from __future__ import annotations

from dataclasses import dataclass

from urae.families.family import ModuleNames
from urae.families.qwen_image.calls import QwenImageCalls
from urae.families.qwen_image.guidance import QwenImageGuidance
from urae.families.qwen_image.latents import QwenImageLatents
from urae.families.qwen_image.layers import QwenImageLayers
from urae.families.qwen_image.names import NAMES
from urae.families.qwen_image.pipelines import QwenImagePipelines
from urae.families.qwen_image.rotary import QwenImageRotary
from urae.families.qwen_image.schedule import QwenImageSchedule
from urae.families.qwen_image.text import QwenImageText

__all__ = ["QwenImage"]


@dataclass(frozen=True, kw_only=True)
class QwenImage:
    """The parts of the contract (`urae.families.family.Family`)."""

    name: str = "Qwen-Image"
    rotary: QwenImageRotary = QwenImageRotary()
    calls: QwenImageCalls = QwenImageCalls()
    latents: QwenImageLatents = QwenImageLatents()
    text: QwenImageText = QwenImageText()
    guidance: QwenImageGuidance = QwenImageGuidance()
    schedule: QwenImageSchedule = QwenImageSchedule()
    layers: QwenImageLayers = QwenImageLayers()
    names: ModuleNames = NAMES
    pipelines: QwenImagePipelines = QwenImagePipelines()

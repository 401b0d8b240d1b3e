"""Z-Image's timestep shift, which is static in its published schedulers."""

from __future__ import annotations

from dataclasses import dataclass

from urae.families.family import Latents
from urae.families.flux.schedule import NativeSchedule
from urae.families.z_image.latents import ZImageLatents

__all__ = ["ZImageSchedule"]


@dataclass(frozen=True)
class ZImageSchedule(NativeSchedule):
    """That of the scheduler's configuration at every size. A scheduler with a dynamic shift is followed as the pipeline
    follows it."""

    latents: Latents = ZImageLatents()

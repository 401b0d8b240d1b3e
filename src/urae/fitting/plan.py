"""What will be measured, known before the first call: the policies, the pictures and the noise levels."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from urae.adapters.base import base_of
from urae.data import CachedDataset, cached_dataset
from urae.execution import check_can_multiply, this_process
from urae.fitting.candidates import candidates_for
from urae.fitting.request import FittingRequest
from urae.io import json_line
from urae.resolution import ResolutionPolicy, size_scale
from urae.statistics.intervals import least_prompts

__all__ = ["FittingPlan", "plan_fitting"]


@dataclass(frozen=True, kw_only=True)
class FittingPlan:
    """Everything that decides the errors; as text it is what a user is told first. Made by `plan_fitting`."""

    pipe: Any = field(repr=False, compare=False)
    request: FittingRequest
    candidates: Mapping[str, ResolutionPolicy]
    data: CachedDataset = field(repr=False, compare=False)
    pictures: Mapping[str, int]
    """Id of each picture that is measured -> its number in the data, in the order of measuring."""
    base: str
    """What the transformer is: its hashes, its type and how its matrices are held."""

    def __str__(self) -> str:
        request, num = self.request, len(self.pictures) * len(self.candidates) * len(self.request.sigmas)
        levels = ", ".join(f"{sigma:g}" for sigma in request.sigmas)
        scale = size_scale(self.pipe, request.size)
        return "\n".join(
            [
                f"{len(self.candidates)} policies on {len(self.pictures)} pictures at {request.size} px, "
                f"{scale:g} times the native size, at sigma {levels}",
                f"{num:,} calls of the transformer at most; policies that are surely worse are stopped early",
                f"errors from sigma {request.high:g} on decide; a timestep shift has no effect on them",
            ]
        )

    def key(self, name: str, picture: str) -> str:
        """Hash of all that a candidate's errors on a picture depend on."""
        entry = self.data.entries[self.pictures[picture]]
        policy = {key: value for key, value in self.candidates[name].to_dict().items() if key != "shift"}
        parts = {"base": self.base, "policy": policy, "picture": entry.keys, "sigmas": self.request.sigmas}
        return hashlib.sha256(json_line(parts).encode()).hexdigest()[:32]


def plan_fitting(
    pipe: Any, request: FittingRequest, *, more: Mapping[str, ResolutionPolicy] | None = None, out: Path
) -> FittingPlan:
    """Decide what is measured. Pictures that are not cached yet are cached here.

    more: policies of one's own by name. out: where scenes of the miniature are rendered to. `ValueError` for fewer
    pictures than can tell so many policies apart, and for what this device cannot do.
    """
    candidates, device = candidates_for(pipe, request, more or {}), this_process().device
    check_can_multiply(request.base_weights, device)
    if request.swap_blocks and device.type == "cpu":
        raise ValueError(f"swap_blocks is {request.swap_blocks}, and on a CPU it has no effect: leave it out")
    data = cached_dataset(
        pipe,
        request.images,
        size=request.size,
        scenes=out / "data",
        device=device,
        folder=request.cache,
    )
    # By the hash of the content: in the order of a folder like pictures stand together, and one could not stop early.
    found = {entry.record.id: number for number, entry in enumerate(data.entries)}
    pictures = dict(sorted(found.items())[: request.pictures])
    least = least_prompts(len(candidates) - 1)
    if len(pictures) < least:
        raise ValueError(
            f"{request.images} gives {len(pictures)} different pictures for {len(candidates)} policies: expected at "
            f"least {least}, and better a few dozen, because fewer cannot tell so many apart: give more, or fewer rules"
        )
    base = base_of(pipe.transformer)
    return FittingPlan(
        pipe=pipe,
        request=request,
        candidates=candidates,
        data=data,
        pictures=pictures,
        base=f"{base.config} {base.weights} {pipe.transformer.dtype} {request.base_weights}",
    )

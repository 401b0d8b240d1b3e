"""`--teacher local`: a pipeline of this machine draws the images."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import Image

from urae import adapters, execution, families, generation
from urae.collecting import LocalPipeline
from urae.collecting.teachers.local import terms_of
from urae.collecting.teachers.teacher import parse_size
from urae.data.pixels import training_buckets
from urae.generation.methods import method_named, options_of
from urae.io import file_hash
from urae.resolution import Size

__all__ = ["Local"]

TRAINED = (256, 512, 1024, 2048, 4096)
"""Px, of the recipes."""


@dataclass(frozen=True, kw_only=True)
class Local:
    """A pipeline of this machine as `urae generate` runs it; the settings of `--teacher local`."""

    shapes: Mapping[str, float] = field(default_factory=lambda: {"256x256": 1.0})
    model: str = "mini"
    base: str = ""
    dtype: str = "auto"
    adapter: str = ""
    method: str = "direct"
    options: Mapping[str, Any] = field(default_factory=dict)
    """Of the method, such as {"weight": 0.5}."""
    steps: int = 0
    """0: the method's own."""
    guidance: float = 0.0
    """0: the method's own."""

    def teacher(self) -> LocalPipeline:
        way = method_named(self.method, self.options)
        described = {
            "method": way.name,
            "options": options_of(way),
            "steps": self.steps or way.steps,
            "guidance": self.guidance or way.guidance,
            "adapter": file_hash(Path(self.adapter)) if self.adapter else None,
        }
        return LocalPipeline(
            draw=self.draw,
            name=self.model,
            shapes=self.shapes,
            described=described,
            terms=terms_of(self.model),
        )

    @property
    def sizes(self) -> Mapping[str, Size]:
        """Of the shapes, and of training at the usual sizes: it can draw any."""
        buckets = [bucket for size in TRAINED for bucket in training_buckets(size)]
        return {shape: parse_size(shape) for shape in (*(f"{w}x{h}" for w, h in buckets), *self.shapes)}

    def draw(self, prompt: str, size: Size, seed: int) -> Image.Image:
        image = generation.generate(
            self._pipe,
            prompt,
            size=size,
            method=method_named(self.method, self.options),
            adapter=self._adapter,
            seed=seed,
            steps=self.steps or "auto",
            guidance=self._guidance,
        )
        assert isinstance(image, Image.Image)
        return image

    @property
    def _guidance(self) -> Any:
        """What records name, whatever the model's own default; where it takes effect."""
        way = method_named(self.method, self.options)
        takes = families.family_of(self._pipe).guidance.kind(self._pipe) != "none"
        return self.guidance or (way.guidance if takes and way.steps else "auto")

    @cached_property
    def _pipe(self) -> Any:
        pipe = families.open_pipeline(self.model, base=self.base, dtype=self.dtype)
        pipe.set_progress_bar_config(disable=True)
        largest = max((parse_size(shape) for shape in self.shapes), key=math.prod)
        plan = execution.plan_memory(pipe, largest)
        if plan.offload == "none":
            pipe.to(plan.device)  # Once, not for each image.
        return pipe

    @cached_property
    def _adapter(self) -> adapters.Adapter | None:
        return adapters.Adapter.load(Path(self.adapter), base=self._pipe) if self.adapter else None

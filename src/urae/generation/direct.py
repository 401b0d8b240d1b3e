"""The direct method: the stock pipeline, called once at the target size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from PIL import Image

from urae.families import Drawing, family_of
from urae.generation.request import Request
from urae.resolution import ResolutionPolicy

__all__ = ["Direct", "after_each_step", "draw", "drawing_of", "generator_of"]


@dataclass(frozen=True, kw_only=True)
class Direct:
    """Denoise fresh noise at the target size. It has no options."""

    name: ClassVar[str] = "direct"
    steps: ClassVar[int] = 28
    """Denoising steps where the request leaves them to the method."""
    guidance: ClassVar[float] = 3.5
    """Guidance scale where the request leaves it to the method."""

    def policy(self, policy: ResolutionPolicy | None) -> ResolutionPolicy | None:
        """The policy that it runs under: the given one."""
        return policy

    def describe(self, *, steps: int, shift: float) -> str:
        """Nothing to tell."""
        return ""

    def draw(self, pipe: Any, request: Request, *, on_step: Callable[[], None]) -> Image.Image:
        """One image by a pipeline whose adapter, policy and memory plan are in place."""
        return draw(pipe, request, on_step)


def draw(pipe: Any, request: Request, on_step: Callable[[], None], **more: Any) -> Image.Image:
    """One call of the stock text-to-image pipeline; `more` are further arguments of it."""
    generator = more.pop("generator", None)
    return family_of(pipe).pipelines.draw(pipe, drawing_of(request, on_step, generator), **more)


def drawing_of(request: Request, on_step: Callable[[], None], generator: Any = None) -> Drawing:
    """A request in the words of the families; its own generator unless one is given."""
    return Drawing(
        prompt=request.prompt,
        negative=request.negative,
        size=request.size,
        guidance=request.guidance,
        steps=request.steps,
        settings={
            "generator": generator or generator_of(request),
            "callback_on_step_end": after_each_step(on_step),
        },
    )


def generator_of(request: Request) -> torch.Generator:
    """The request's own generator, on the CPU."""
    return torch.Generator("cpu").manual_seed(request.seed)


def after_each_step(on_step: Callable[[], None]) -> Callable[..., dict[str, Any]]:
    """A pipeline's `callback_on_step_end` that calls `on_step` and changes nothing."""

    def after_step(pipe: Any, index: int, timestep: Any, state: dict[str, Any]) -> dict[str, Any]:
        on_step()
        return state

    return after_step

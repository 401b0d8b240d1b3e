"""The direct method: the stock pipeline, called once at the target size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from PIL import Image

from urae.generation.request import Request
from urae.resolution import ResolutionPolicy, text_tokens

__all__ = ["Direct", "after_each_step", "call_settings"]


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
        return pipe(num_inference_steps=request.steps, **call_settings(pipe, request, on_step)).images[0]


def call_settings(pipe: Any, request: Request, on_step: Callable[[], None]) -> dict[str, Any]:
    """What every call of a stock FLUX pipeline for `request` takes, text-to-image or image-to-image."""
    width, height = request.size
    return {
        "prompt": request.prompt,
        "width": width,
        "height": height,
        "guidance_scale": request.guidance,
        "max_sequence_length": text_tokens(pipe),
        "generator": torch.Generator("cpu").manual_seed(request.seed),
        "callback_on_step_end": after_each_step(on_step),
    }


def after_each_step(on_step: Callable[[], None]) -> Callable[..., dict[str, Any]]:
    """A pipeline's `callback_on_step_end` that calls `on_step` and changes nothing."""

    def after_step(pipe: Any, index: int, timestep: Any, state: dict[str, Any]) -> dict[str, Any]:
        on_step()
        return state

    return after_step

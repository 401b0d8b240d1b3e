"""The direct method: the stock pipeline, called once at the target size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from PIL import Image

from urae.generation.request import Request
from urae.resolution import text_tokens

__all__ = ["direct"]


def direct(pipe: Any, request: Request, *, on_step: Callable[[], None]) -> Image.Image:
    """Denoise fresh noise at the target size. `on_step` is called after each of `request.steps` steps."""

    def after_step(pipe: Any, index: int, timestep: Any, state: dict[str, Any]) -> dict[str, Any]:
        on_step()
        return state

    width, height = request.size
    return pipe(
        request.prompt,
        width=width,
        height=height,
        num_inference_steps=request.steps,
        guidance_scale=request.guidance,
        max_sequence_length=text_tokens(pipe),
        generator=torch.Generator("cpu").manual_seed(request.seed),
        callback_on_step_end=after_step,
    ).images[0]

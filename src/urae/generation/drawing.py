"""Images from prompts: the one entry point for every method, with or without an adapter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from PIL import Image

from urae.exports import takes
from urae.generation.asking import DrawingRequest
from urae.generation.plan import plan_drawing

__all__ = ["generate"]


@takes(DrawingRequest)
def generate(
    pipe: Any,
    prompt: str | Sequence[str],
    *,
    size: int | Sequence[int],
    on_step: Callable[[], None] = lambda: None,
    on_native: Callable[[Image.Image], None] = lambda image: None,
    on_image: Callable[[Image.Image], None] = lambda image: None,
    **asked: Any,
) -> Image.Image | list[Image.Image]:
    """Make an image of every prompt with every seed, with a stock pipeline.

    `size` is (width, height) in pixels. All other settings are the fields of `DrawingRequest`: `method`, a name of
    `METHODS` or a method with options, such as `Imax(weight=0.5)`; `adapter`, `policy`, `seed`, `steps`, `guidance`,
    `native`, `natives`, `memory`, `speed`, `compile`, `context_parallel` and so on.

    `on_step` is called after each denoising step of both passes (those of a kept native picture count at once),
    `on_native` with each native picture, `on_image` with each finished image. `plan_drawing` gives the plan that this
    runs, to look at first or to run in parts.

    Returns one image for a prompt and a seed, else a list, all seeds of the first prompt first. Raises ValueError for
    a size, method or setting that the model cannot follow, before anything is computed.
    """
    request = DrawingRequest(prompt=prompt, size=size, **asked)
    images = plan_drawing(pipe, request).run(on_step=on_step, on_native=on_native, on_image=on_image)
    return images[0] if request.is_for_one else images

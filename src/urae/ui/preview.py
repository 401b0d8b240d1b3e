"""Previews while a picture is drawn: what each call of the transformer predicts of the clean picture, by a linear map
from latents to RGB, in place of a decoder that takes longer than the step."""

from __future__ import annotations

import inspect
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from urae.families import family_of
from urae.resolution import Size

__all__ = ["ColourMap", "previews"]

PICTURES, SIDE = 48, 64
"""Pictures of random colours that the map is fitted on, and their side in pixels."""


class ColourMap:
    """The linear map from a latent pixel to a colour, fitted through the model's own VAE."""

    def __init__(self, pipe: Any) -> None:
        pixels = _random_pictures()
        with torch.no_grad():
            latents = family_of(pipe).latents.encode(pipe, pixels).mean.float().cpu()
        colours = F.interpolate(pixels, latents.shape[-2:], mode="area").movedim(1, -1).reshape(-1, 3)
        known = latents.movedim(1, -1).reshape(len(colours), -1)
        known = torch.cat([known, torch.ones(len(known), 1)], dim=1)
        self.weights = torch.linalg.lstsq(known, colours).solution
        """(channels + 1, 3)."""

    def picture(self, clean: Tensor) -> Image.Image:
        """The colours of latents (C, H, W), a pixel each."""
        colours = torch.einsum("chw,cd->hwd", clean.float().cpu(), self.weights[:-1]) + self.weights[-1]
        return Image.fromarray(((colours.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).numpy(), "RGB")


def _random_pictures() -> Tensor:
    """(PICTURES, 3, SIDE, SIDE) in [-1, 1]: colour at all scales, so that texture is not taken for it."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.zeros(PICTURES, 3, SIDE, SIDE)
    for cells, weight in ((1, 0.5), (4, 0.5), (16, 0.3), (SIDE, 0.2)):
        noise = torch.randn(PICTURES, 3, cells, cells, generator=generator)
        pixels += weight * F.interpolate(noise, (SIDE, SIDE), mode="nearest")
    return pixels.clamp(-1, 1)


@contextmanager
def previews(pipe: Any, colours: ColourMap, size: Size, show: Callable[[bytes], None]) -> Iterator[None]:
    """Inside it, `show` is given a small PNG after each call at `size`; calls of other sizes (windows, the native pass)
    show nothing. The pictures that are drawn are the same."""
    family = family_of(pipe)
    height, width = family.latents.shape(pipe, size)
    signature = inspect.signature(type(pipe.transformer).forward)

    def seen(module: Any, arguments: Any, named: dict[str, Any], output: Any) -> None:
        inputs = signature.bind(module, *arguments, **named).arguments
        velocity = output[0] if isinstance(output, tuple) else output.sample
        if inputs["hidden_states"].shape[1] != family.latents.pack(torch.zeros(1, 1, height, width)).shape[1]:
            return
        noisy = family.calls.latents(inputs, height, width)
        sigma = family.calls.sigma(inputs)[-1].float()
        clean = noisy[-1].float() - sigma * family.latents.unpack(velocity, height, width)[-1].float()
        stream = io.BytesIO()
        colours.picture(clean).save(stream, "PNG")
        show(stream.getvalue())

    hook = pipe.transformer.register_forward_hook(seen, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()

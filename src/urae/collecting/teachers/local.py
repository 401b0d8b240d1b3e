"""A pipeline on this machine as the teacher: any function from prompt, size and seed to an image.

With `urae.generate` as the function it is a stock diffusers pipeline at any size, by any of the generation methods;
`urae data collect --teacher local` puts the two together.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from PIL import Image

from urae.collecting.teachers.teacher import Gone, ImageOrder, TakenOrder, check_mix, parse_size
from urae.resolution import Size, check_size

__all__ = ["LocalPipeline", "terms_of"]

UNKNOWN = "of the model that draws, which are not known here: read its licence"
APACHE = "Apache-2.0, which asks nothing of the images"
TERMS: Mapping[str, str] = {
    "mini": "Apache-2.0, with art under MIT and Apache-2.0 in the pictures",
    "black-forest-labs/FLUX.1-schnell": APACHE,
    "lodestones/Chroma1-Base": APACHE,
    "lodestones/Chroma1-HD": APACHE,
    "Tongyi-MAI/Z-Image": APACHE,
    "Tongyi-MAI/Z-Image-Turbo": APACHE,
    "Qwen/Qwen-Image": APACHE,
    "Qwen/Qwen-Image-2512": APACHE,
    "black-forest-labs/FLUX.2-klein-4B": APACHE,
    "black-forest-labs/FLUX.2-klein-base-4B": APACHE,
    "black-forest-labs/FLUX.1-dev": "FLUX.1 [dev] Non-Commercial License: images may not train a model that competes "
    "with FLUX.1 [dev]",
}
"""By hub id, as the model's page said in November 2026."""


@dataclass(frozen=True, kw_only=True)
class LocalPipeline:
    """Images by `draw(prompt, size, seed)`, one at a time, kept as PNG."""

    draw: Callable[[str, Size, int], Image.Image]
    name: str
    """The model, as records name it."""
    shapes: Mapping[str, float]
    """Sizes such as "512x384", multiples of 16 px, with weights."""
    described: Mapping[str, Any]
    """What else decides an image, such as method, steps and guidance, as JSON values."""
    terms: str = UNKNOWN

    gives_tickets: ClassVar[bool] = False
    poll_every: ClassVar[float] = 0.0
    concurrency: ClassVar[int] = 1
    rate: ClassVar[float] = float("inf")

    def __post_init__(self) -> None:
        check_mix(self.shapes)
        for shape in self.shapes:
            check_size(parse_size(shape))

    @property
    def sizes(self) -> Mapping[str, Size]:
        return {shape: parse_size(shape) for shape in self.shapes}

    def price_of(self, shape: str) -> float:
        return 0.0

    def settings(self) -> dict[str, Any]:
        return dict(self.described)

    def ready(self) -> None:
        """There is nothing to go wrong."""

    def order(self, wanted: ImageOrder) -> TakenOrder:
        stream = io.BytesIO()
        self.draw(wanted.prompt, parse_size(wanted.shape), wanted.seed).save(stream, "PNG")
        return TakenOrder(cost=0.0, image=stream.getvalue())

    def fetch(self, ticket: dict[str, Any]) -> bytes:
        raise Gone(f"{self.name} makes images at once and knows no ticket {ticket}")


def terms_of(model: str) -> str:
    """The licence line of a model of this machine."""
    return TERMS.get(model, UNKNOWN)

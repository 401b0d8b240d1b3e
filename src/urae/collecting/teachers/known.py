"""The teachers that are known by name, each with the settings that make it that one.

`urae data collect --teacher NAME` offers these. What a model's sizes are was read where it is said.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from urae.collecting.teachers.openai_images import BYTEPLUS
from urae.collecting.teachers.teacher import mix_of, pixel_sizes

__all__ = ["KNOWN", "Known"]

SEEDREAM_2K = pixel_sizes("2048x2048", "2304x1728", "2496x1664", "2848x1600")
SEEDREAM_4K = pixel_sizes("4096x4096", "4704x3520", "4992x3328", "5504x3040")
"""Those that its documentation recommends for 2K and 4K (volcengine.com/docs/82379, image generation API; read on
1 December 2026), 21:9 left out."""
GPT_IMAGE_1 = pixel_sizes("1024x1024", "1536x1024")
GPT_IMAGE_2 = pixel_sizes("2048x2048", "2304x1792", "2496x1664", "2688x1536", "3840x2160")
"""It takes multiples of 16 px up to 3840 px a side and 8.3 megapixels: these are shapes of 2K training, and UHD."""


@dataclass(frozen=True, kw_only=True)
class Known:
    """A class of teachers, and what is set where a user does not say otherwise."""

    kind: str
    """Module and class."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    """Settings that the name stands for, which nobody changes."""


def _flux_2(model: str) -> Known:
    return Known(kind="urae.collecting.teachers:Flux2Teacher", fixed={"model": model})


def _openai(model: str, mix: Mapping[str, Any], offered: Mapping[str, Any] = {}, **settings: Any) -> Known:
    given = {"model": model, "shapes": mix_of(*mix), "offered": tuple(offered), **settings}
    return Known(kind="urae.collecting.teachers:OpenAIImages", settings=given)


def _seedream(model: str) -> Known:
    asked = {"watermark": False, "response_format": "b64_json", "sequential_image_generation": "disabled"}
    where = {"base_url": BYTEPLUS, "key_variable": "ARK_API_KEY"}
    return _openai(model, SEEDREAM_2K, SEEDREAM_4K, options=asked, **where)


KNOWN: Mapping[str, Known] = {
    "flux-pro-1.1-ultra": Known(kind="urae.collecting.teachers:FluxProUltra"),
    **{f"flux-2-{model}": _flux_2(model) for model in ("max", "pro", "flex", "klein-9b", "klein-4b")},
    "flux-3-image": Known(kind="urae.collecting.teachers:Flux3Image"),
    "seedream-4.5": _seedream("seedream-4-5-251128"),
    "seedream-4.0": _seedream("seedream-4-0-250828"),
    "gpt-image-2": _openai("gpt-image-2", GPT_IMAGE_2),
    "gpt-image-1": _openai("gpt-image-1", GPT_IMAGE_1),
    "openai": Known(kind="urae.collecting.teachers:OpenAIImages"),
}

"""Synthetic images and captions: teachers, orders and their journal, captions by a vision-language model, prompts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from urae.exports import lazily

if TYPE_CHECKING:
    from urae.collecting.captioner import Captioner
    from urae.collecting.captioning import Captioned, CaptionPlan, caption, plan_captions
    from urae.collecting.collecting import Collection, CollectionPlan, collect, plan_collection
    from urae.collecting.prompt_files import read_prompts, shipped_prompts
    from urae.collecting.teachers import FluxProUltra, LocalPipeline, OpenAIImages, Teacher

__all__ = [
    "CaptionPlan",
    "Captioned",
    "Captioner",
    "Collection",
    "CollectionPlan",
    "FluxProUltra",
    "LocalPipeline",
    "OpenAIImages",
    "Teacher",
    "caption",
    "collect",
    "plan_captions",
    "plan_collection",
    "read_prompts",
    "shipped_prompts",
]

__getattr__, __dir__ = lazily(
    __name__,
    {
        "captioner": ["Captioner"],
        "captioning": ["CaptionPlan", "Captioned", "caption", "plan_captions"],
        "collecting": ["Collection", "CollectionPlan", "collect", "plan_collection"],
        "prompt_files": ["read_prompts", "shipped_prompts"],
        "teachers": ["FluxProUltra", "LocalPipeline", "OpenAIImages", "Teacher"],
    },
)

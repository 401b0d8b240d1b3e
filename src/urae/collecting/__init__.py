"""Synthetic images and captions: teachers, orders and their journal, captions by a vision-language model, prompts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from urae.exports import lazily

if TYPE_CHECKING:
    from urae.collecting.captioner import Captioner
    from urae.collecting.captioning import Captioned, CaptionPlan, caption, plan_captions
    from urae.collecting.plan import CollectionPlan, plan_collection
    from urae.collecting.prompt_files import read_prompts, shipped_prompts
    from urae.collecting.results import Collection
    from urae.collecting.run import collect, run_collection
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
    "run_collection",
    "shipped_prompts",
]

__getattr__, __dir__ = lazily(
    __name__,
    {
        "captioner": ["Captioner"],
        "captioning": ["CaptionPlan", "Captioned", "caption", "plan_captions"],
        "plan": ["CollectionPlan", "plan_collection"],
        "prompt_files": ["read_prompts", "shipped_prompts"],
        "results": ["Collection"],
        "run": ["collect", "run_collection"],
        "teachers": ["FluxProUltra", "LocalPipeline", "OpenAIImages", "Teacher"],
    },
)

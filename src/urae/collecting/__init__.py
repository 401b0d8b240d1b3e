"""Synthetic images and captions: teachers, orders and their journal, captions by a vision-language model, prompts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from urae.exports import lazily

if TYPE_CHECKING:
    from urae.collecting.captioner import Captioner
    from urae.collecting.captioning import Captioned, CaptionPlan, caption, plan_captions, run_captions
    from urae.collecting.plan import CollectionPlan, CollectionRequest, plan_collection
    from urae.collecting.prompt_files import read_prompts, shipped_prompts
    from urae.collecting.results import Collection
    from urae.collecting.run import collect, run_collection
    from urae.collecting.teachers import (
        Flux2Teacher,
        Flux3Image,
        FluxProUltra,
        LocalPipeline,
        OpenAIImages,
        Teacher,
    )

__getattr__, __dir__, __all__ = lazily(__name__)

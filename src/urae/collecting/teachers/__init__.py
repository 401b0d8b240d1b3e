"""Teachers: who makes synthetic images, behind one protocol. Black Forest Labs' API, OpenAI-compatible, or local."""

from __future__ import annotations

from typing import TYPE_CHECKING

from urae.exports import lazily

if TYPE_CHECKING:
    from urae.collecting.teachers.flux import Flux2Teacher, Flux3Image, FluxProUltra
    from urae.collecting.teachers.known import KNOWN, Known
    from urae.collecting.teachers.local import LocalPipeline
    from urae.collecting.teachers.openai_images import OpenAIImages
    from urae.collecting.teachers.teacher import (
        Expired,
        Gone,
        ImageOrder,
        Later,
        Moderated,
        TakenOrder,
        Teacher,
        Unserved,
    )

__getattr__, __dir__, __all__ = lazily(__name__)

"""Teachers: who makes synthetic images, behind one protocol. FLUX1.1 [pro] Ultra, OpenAI-compatible, or local."""

from __future__ import annotations

from typing import TYPE_CHECKING

from urae.exports import lazily

if TYPE_CHECKING:
    from urae.collecting.teachers.flux import FluxProUltra
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

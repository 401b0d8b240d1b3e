"""Teachers: who makes synthetic images, behind one protocol. FLUX1.1 [pro] Ultra, OpenAI-compatible, or local."""

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

__all__ = [
    "Expired",
    "FluxProUltra",
    "Gone",
    "ImageOrder",
    "Later",
    "LocalPipeline",
    "Moderated",
    "OpenAIImages",
    "TakenOrder",
    "Teacher",
    "Unserved",
]

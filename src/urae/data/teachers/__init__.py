"""Teachers: who makes synthetic images, behind one protocol. FLUX1.1 [pro] Ultra, OpenAI-compatible, or local."""

from urae.data.teachers.flux import FluxProUltra
from urae.data.teachers.local import LocalPipeline
from urae.data.teachers.openai_images import OpenAIImages
from urae.data.teachers.teacher import Expired, Gone, Later, Order, Refused, Request, Teacher, Unserved

__all__ = [
    "Expired",
    "FluxProUltra",
    "Gone",
    "Later",
    "LocalPipeline",
    "OpenAIImages",
    "Order",
    "Refused",
    "Request",
    "Teacher",
    "Unserved",
]

"""What is trained: specs, the decomposition, attaching by peft, adapter files and their conversions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from urae.exports import lazily

if TYPE_CHECKING:
    from urae.adapters.adapter import Adapter
    from urae.adapters.attaching import Attached, attach
    from urae.adapters.base import Base, base_of
    from urae.adapters.decomposition import Triplets, decompose, decompose_cached
    from urae.adapters.merging import Truncation, merge, truncate
    from urae.adapters.specs import IMAGE_STREAM, PAPER_TARGETS, SPECS, Full, Lora, Major, Mica, Minor, Spec

__all__ = [
    "IMAGE_STREAM",
    "PAPER_TARGETS",
    "SPECS",
    "Adapter",
    "Attached",
    "Base",
    "Full",
    "Lora",
    "Major",
    "Mica",
    "Minor",
    "Spec",
    "Triplets",
    "Truncation",
    "attach",
    "base_of",
    "decompose",
    "decompose_cached",
    "merge",
    "truncate",
]

__getattr__, __dir__ = lazily(
    __name__,
    {
        "adapter": ["Adapter"],
        "attaching": ["Attached", "attach"],
        "base": ["Base", "base_of"],
        "decomposition": ["Triplets", "decompose", "decompose_cached"],
        "merging": ["Truncation", "merge", "truncate"],
        "specs": ["IMAGE_STREAM", "PAPER_TARGETS", "SPECS", "Full", "Lora", "Major", "Mica", "Minor", "Spec"],
    },
)

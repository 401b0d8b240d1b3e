"""What is trained: specs, the decomposition, attaching by peft, adapter files and their conversions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from urae.exports import lazily

if TYPE_CHECKING:
    from urae.adapters.adapter import Adapter
    from urae.adapters.attaching import Attached, attach
    from urae.adapters.base import Base, base_of
    from urae.adapters.decomposition import Triplets, decompose, decompose_cached
    from urae.adapters.files import SHIPPED, file_named
    from urae.adapters.merging import Truncation, merge, truncate
    from urae.adapters.specs import IMAGE_STREAM, PAPER_TARGETS, SPECS, Full, Lora, Major, Mica, Minor, Spec
    from urae.adapters.stack import AdapterFile, Stack, load_adapters, one_or_stack

__getattr__, __dir__, __all__ = lazily(__name__)

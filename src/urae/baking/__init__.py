"""An adapter's weights put into a model's own files for good: W' = W + A B (paper, Sec. 2.3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from urae.exports import lazily

if TYPE_CHECKING:
    from urae.baking.writing import Baked, bake

__getattr__, __dir__, __all__ = lazily(__name__)

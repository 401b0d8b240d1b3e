"""Importing real images: measure, judge by thresholds, take, and show what was rejected."""

from __future__ import annotations

from typing import TYPE_CHECKING

from urae.exports import lazily

if TYPE_CHECKING:
    from urae.intake.filters import REASONS, Filters, Reject
    from urae.intake.importing import Import, import_images
    from urae.intake.inspecting import data_summary, inspect_data
    from urae.intake.measures import Measures, measure

__getattr__, __dir__, __all__ = lazily(__name__)

"""Importing real images: measure, judge by thresholds, take, and show what was rejected."""

from urae.data.imports.filters import REASONS, Filters, Reject
from urae.data.imports.measures import Measures, measure
from urae.data.imports.run import Import, import_images

__all__ = ["REASONS", "Filters", "Import", "Measures", "Reject", "import_images", "measure"]

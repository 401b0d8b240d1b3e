"""Comparisons: prompts and seeds, each drawn several ways, beside pictures of other models."""

from urae.comparing.candidates import candidate_pictures
from urae.comparing.sheet import ComparisonSheet, conditions, measures

__all__ = ["ComparisonSheet", "candidate_pictures", "conditions", "measures"]

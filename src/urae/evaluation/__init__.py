"""Measuring pictures: repetition and detail, the two things that go wrong above the native size."""

from urae.evaluation.detail import detail, relative_detail
from urae.evaluation.repetition import repetition

__all__ = ["detail", "relative_detail", "repetition"]

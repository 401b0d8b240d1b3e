"""`urae quickstart`: the whole method on the miniature, in minutes, with a report."""

from urae.quickstart.run import Column, Quickstart, quickstart

__all__ = ["Column", "Quickstart", "quickstart"]

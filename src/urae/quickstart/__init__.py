"""`urae quickstart`: the whole method on the miniature, in minutes, with a report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from urae.exports import lazily

if TYPE_CHECKING:
    from urae.quickstart.report import MeasuredWay
    from urae.quickstart.run import Quickstart, quickstart

__getattr__, __dir__, __all__ = lazily(__name__)

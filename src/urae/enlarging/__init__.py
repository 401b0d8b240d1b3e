"""A picture of one's own, larger: how much of it may change, the shapes, and the page that shows before and after."""

from __future__ import annotations

from typing import TYPE_CHECKING

from urae.exports import lazily

if TYPE_CHECKING:
    from urae.enlarging.asking import LEVELS, EnlargeRequest
    from urae.enlarging.page import before_after_page
    from urae.enlarging.plan import EnlargePlan, described, plan_enlarging
    from urae.enlarging.shape import Fit, fitted

__getattr__, __dir__, __all__ = lazily(__name__)

"""`urae ui`: a page on this machine for whoever makes pictures: draw, look, queue, history and training runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from urae.exports import lazily

if TYPE_CHECKING:
    from urae.ui.server import serve

__getattr__, __dir__, __all__ = lazily(__name__)

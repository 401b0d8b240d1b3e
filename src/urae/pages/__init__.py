"""What goes out as HTML: pages of one file, pictures and curves in them, and what stands before a site of ours."""

from __future__ import annotations

from typing import TYPE_CHECKING

from urae.exports import lazily

if TYPE_CHECKING:
    from urae.pages.curves import curves_svg
    from urae.pages.html import data_uri, html_page, thumbnail
    from urae.pages.sheet import SheetPart, SheetPicture, is_reduced, sheet_page, sheet_picture, tile_of

__getattr__, __dir__, __all__ = lazily(__name__)

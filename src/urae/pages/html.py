"""HTML pages of one file: templates that escape what they show, and pictures that are part of the page."""

from __future__ import annotations

import base64
import io
from functools import cache
from typing import Any, Literal

from jinja2 import ChoiceLoader, Environment, PackageLoader, PrefixLoader, StrictUndefined
from PIL import Image

__all__ = ["data_uri", "html_page", "thumbnail"]


def html_page(package: str, template: str, **values: Any) -> str:
    """The page that the template in `package`'s folder `templates` makes of the values; texts in them are escaped.

    A report includes "pages/report.css", the style that all of them share.
    """
    return _environment(package).get_template(template).render(**values)


def data_uri(picture: Image.Image, *, kind: Literal["jpeg", "png"] = "jpeg", **options: int) -> str:
    """An RGB picture as an address that holds it; `options` are those of Pillow's encoder. Metadata stay behind: they
    would tell who made it."""
    stream = io.BytesIO()
    Image.frombytes("RGB", picture.size, picture.tobytes()).save(stream, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode()}"


def thumbnail(picture: Image.Image, side: int) -> Image.Image:
    """A copy that fits `side` pixels; nothing is enlarged."""
    small = picture.copy()
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    return small


@cache
def _environment(package: str) -> Environment:
    return Environment(
        loader=ChoiceLoader([PackageLoader(package), PrefixLoader({"pages": PackageLoader("urae.pages")})]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )

"""Sheets of pictures: each one small with what it is called, and parts of it pixel by pixel. One sheet is a page of one
file, for any width, bright or dark, or a single picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from urae.pages.html import data_uri, html_page

__all__ = ["MIDDLE", "SheetPart", "SheetPicture", "is_reduced", "sheet_page", "sheet_picture", "tile_of"]

CELL, GAP, MARGIN, MAX_COLUMNS = 320, 20, 24, 5
"""Width of a picture, what is between two and around all, px, and pictures in a row."""
INK, SOFT, PAPER = "#1d2430", "#5b6472", "#ffffff"
MIDDLE = (0.5, 0.5)
Place = tuple[float, float]
"""In a picture, as shares of its width and height."""


@dataclass(frozen=True, kw_only=True)
class SheetPicture:
    """A picture on a sheet."""

    label: str
    note: str
    whole: Image.Image
    """As wide as its column."""
    crops: Sequence[Image.Image]
    """Parts as wide as the column, pixel by pixel; none where the picture is hardly reduced."""
    file: str = ""
    """Where the picture itself lies, relative to the page."""


@dataclass(frozen=True, kw_only=True)
class SheetPart:
    """Pictures that belong together."""

    heading: str
    note: str
    tiles: Sequence[SheetPicture]


def tile_of(
    picture: Image.Image, *, label: str, note: str = "", file: str = "", crops: Sequence[Place] = (MIDDLE,)
) -> SheetPicture:
    """What a sheet shows of a picture; `crops` are the middles of the parts."""
    picture = picture.convert("RGB")
    height = max(1, round(CELL * picture.height / picture.width))
    whole = picture.resize((CELL, height), Image.Resampling.LANCZOS)
    parts = [_crop(picture, place) for place in crops] if is_reduced(picture.width) else []
    return SheetPicture(label=label, note=note, whole=whole, crops=parts, file=file)


def is_reduced(width: int) -> bool:
    """Whether a picture of so many pixels is shown so much smaller that parts of it are shown too."""
    return width > 1.5 * CELL


def sheet_page(parts: Sequence[SheetPart], *, title: str, note: str = "") -> str:
    """The sheet as an HTML page of one file; each picture leads to its file."""
    return html_page(
        "urae.pages",
        "sheet.html.j2",
        title=title,
        note=note,
        parts=parts,
        cell=CELL,
        jpeg=lambda picture: data_uri(picture, quality=92),
        exact=lambda picture: data_uri(picture, kind="png"),
    )


def sheet_picture(parts: Sequence[SheetPart], *, note: str = "") -> Image.Image:
    """The sheet as one picture, in even rows of at most five."""
    columns = max(_columns(len(part.tiles)) for part in parts)
    width = columns * (CELL + GAP) - GAP
    blocks = [block for part in parts for block in _blocks(part, width)]
    blocks += [_column([(note, SOFT, 15)], [], width)] if note else []
    height = sum(block.height + GAP for block in blocks) - GAP
    sheet, top = Image.new("RGB", (width + 2 * MARGIN, height + 2 * MARGIN), PAPER), MARGIN
    for block in blocks:
        sheet.paste(block, (MARGIN, top))
        top += block.height + GAP
    return sheet


def _blocks(part: SheetPart, width: int) -> list[Image.Image]:
    """The heading of a part, and its rows."""
    texts = [(part.heading, INK, 24), (part.note, SOFT, 15)]
    cells = [
        _column([(tile.label, INK, 18), (tile.note, SOFT, 15)], [tile.whole, *tile.crops], CELL)
        for tile in part.tiles
    ]
    columns = _columns(len(cells))
    rows = [cells[start : start + columns] for start in range(0, len(cells), columns)]
    return [_column([text for text in texts if text[0]], [], width), *(_row(row, width) for row in rows)]


def _columns(num: int) -> int:
    return math.ceil(num / math.ceil(num / MAX_COLUMNS))


def _row(cells: Sequence[Image.Image], width: int) -> Image.Image:
    row = Image.new("RGB", (width, max(cell.height for cell in cells)), PAPER)
    for place, cell in enumerate(cells):
        row.paste(cell, (place * (CELL + GAP), 0))
    return row


def _crop(picture: Image.Image, place: Place) -> Image.Image:
    """The part around a place that fills a column pixel by pixel, moved where it would reach over the edge."""
    width, height = CELL, min(CELL, picture.height)
    left = min(max(round(place[0] * picture.width - width / 2), 0), picture.width - width)
    top = min(max(round(place[1] * picture.height - height / 2), 0), picture.height - height)
    return picture.crop((left, top, left + width, top + height))


def _column(
    texts: Sequence[tuple[str, str, int]], pictures: Sequence[Image.Image], width: int
) -> Image.Image:
    """Texts (words, colour, size), broken into lines where they are wider, and pictures, one below the other."""
    lines = [(line, ink, size) for text, ink, size in texts for line in _wrapped(text, _font(size), width)]
    height = sum(_line_height(size) for _, _, size in lines) + sum(8 + picture.height for picture in pictures)
    column = Image.new("RGB", (width, max(height, 1)), PAPER)
    draw, top = ImageDraw.Draw(column), 0
    for line, ink, size in lines:
        draw.text((0, top), line, fill=ink, font=_font(size))
        top += _line_height(size)
    for picture in pictures:
        column.paste(picture, (0, top + 8))
        top += 8 + picture.height
    return column


def _wrapped(text: str, font: Any, width: int) -> list[str]:
    """`text` in lines that are no wider than `width` pixels, if no single word is."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def _line_height(size: int) -> int:
    return round(1.3 * size)


@lru_cache
def _font(size: int) -> Any:
    return ImageFont.load_default(size)

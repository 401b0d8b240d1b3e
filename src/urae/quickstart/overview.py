"""One picture of the whole: prompts down, ways of drawing across."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

__all__ = ["overview"]

CELL, GAP, HEAD, LINE = 256, 8, 34, 24
INK, SOFT, PAPER = "#1d2430", "#5b6472", "#ffffff"


def overview(
    titles: Sequence[str], rows: Sequence[Sequence[Image.Image]], prompts: Sequence[str]
) -> Image.Image:
    """A sheet with a titled column for each of `titles` and, under its prompt, a row of pictures for each of
    `rows`; every picture is shown 256 px wide."""
    width = len(titles) * (CELL + GAP) + GAP
    sheet = Image.new("RGB", (width, HEAD + len(rows) * (CELL + LINE + GAP) + GAP), PAPER)
    draw = ImageDraw.Draw(sheet)
    for column, title in enumerate(titles):
        draw.text((GAP + column * (CELL + GAP), 10), title, fill=INK, font=ImageFont.load_default(18))
    for row, (images, prompt) in enumerate(zip(rows, prompts, strict=True)):
        top = HEAD + row * (CELL + LINE + GAP)
        draw.text((GAP, top + 2), prompt, fill=SOFT, font=ImageFont.load_default(15))
        for column, image in enumerate(images):
            shown = image.resize((CELL, CELL), Image.Resampling.LANCZOS)
            sheet.paste(shown, (GAP + column * (CELL + GAP), top + LINE))
    return sheet

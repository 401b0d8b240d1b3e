"""Contact sheets of rejects, one for each reason: what a threshold costs is seen rather than guessed."""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from urae.intake.examining import CELL, cell_file
from urae.intake.filters import Reject
from urae.io import jpeg_of, read_picture, write_bytes

__all__ = ["sheet_file", "write_sheets"]

COLUMNS, MOST = 4, 24
WIDTH, LINE, GAP = CELL * 5 // 2, 17, 12
INK, SOFT, PAPER, BLANK = "#1d2430", "#5b6472", "#ffffff", "#f0f2f5"


def write_sheets(rejects: Sequence[Reject], ids: Mapping[str, str], *, cells: Path, sheets: Path) -> None:
    """Draw up to 24 examples of each reason, spread evenly over what was measured, into `sheets`/REASON.jpg. What
    other sheets are there is removed. ids: of the images by name, "" for those that could not be read."""
    shutil.rmtree(sheets, ignore_errors=True)
    by_reason = defaultdict(list)
    for reject in rejects:
        by_reason[reject.reason].append(reject)
    for reason, alike in by_reason.items():
        sheet = _sheet(_spread(sorted(alike, key=lambda reject: reject.value)), ids, cells)
        write_bytes(sheet_file(sheets, reason), jpeg_of(sheet, quality=85))


def sheet_file(sheets: Path, reason: str) -> Path:
    """Where the sheet of a reason lies."""
    return sheets / f"{reason.replace(' ', '-').replace('/', '-')}.jpg"


def _spread(rejects: list[Reject]) -> list[Reject]:
    if len(rejects) <= MOST:
        return rejects
    return [rejects[round(index * (len(rejects) - 1) / (MOST - 1))] for index in range(MOST)]


def _sheet(rejects: Sequence[Reject], ids: Mapping[str, str], cells: Path) -> Image.Image:
    columns = min(COLUMNS, len(rejects))
    rows = -(-len(rejects) // columns)
    height = CELL + 2 * LINE + GAP
    sheet = Image.new("RGB", (columns * (WIDTH + GAP) + GAP, rows * height + GAP), PAPER)
    for index, reject in enumerate(rejects):
        place = GAP + index % columns * (WIDTH + GAP), GAP + index // columns * height
        _draw(sheet, place, reject, _cell(ids[reject.name], cells))
    return sheet


def _cell(digest: str, cells: Path) -> Image.Image:
    if not digest:
        return Image.new("RGB", (WIDTH, CELL), BLANK)
    return read_picture(cell_file(cells, digest))


def _draw(sheet: Image.Image, place: tuple[int, int], reject: Reject, cell: Image.Image) -> None:
    left, top = place
    sheet.paste(cell, place)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    name = reject.name if len(reject.name) <= 52 else f"…{reject.name[-51:]}"
    draw.text((left, top + CELL + 2), reject.detail[:64], fill=INK, font=font)
    draw.text((left, top + CELL + 2 + LINE), name, fill=SOFT, font=font)

"""The page of one file that shows a picture before and after: a slider over the whole, the middle pixel by pixel."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from urae.enlarging.plan import EnlargePlan
from urae.pages import data_uri, html_page

__all__ = ["before_after_page"]

CROP = 360
"""Side of what is shown pixel by pixel, px."""
QUALITY = 90


def before_after_page(plan: EnlargePlan, after: Sequence[tuple[Path, Image.Image]]) -> str:
    """HTML of the picture enlarged plainly beside each of those drawn, given with their files."""
    before = plan.before
    pairs = [
        {
            "name": file.name,
            "seed": made.seed,
            "after": data_uri(picture.convert("RGB"), quality=QUALITY),
            "crop": data_uri(_middle(picture.convert("RGB")), kind="png"),
        }
        for (file, picture), made in zip(after, plan.made, strict=True)
    ]
    return html_page(
        "urae.enlarging",
        "page.html.j2",
        name=plan.made[0].native_file,
        size=before.size,
        crop=_middle(before).size,
        prompt=plan.asked.prompt,
        facts=str(plan).splitlines(),
        before=data_uri(before, quality=QUALITY),
        before_crop=data_uri(_middle(before), kind="png"),
        pairs=pairs,
    )


def _middle(picture: Image.Image) -> Image.Image:
    width, height = (min(CROP, side) for side in picture.size)
    left, top = (picture.width - width) // 2, (picture.height - height) // 2
    return picture.crop((left, top, left + width, top + height))

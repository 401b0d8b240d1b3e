"""A ladder of known damage on the miniature's world, and which of its steps each metric claims to see.

Truth, JPEG of quality 50, blur, a true picture of other objects than the caption says, and the picture's own tiles
in another order. A metric that means something puts the steps that it claims to see in this order. The reference is the
truth of the same scenes, as the teacher's pictures of the same prompts are for a real model.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from PIL import Image, ImageFilter

from urae.io import write_png
from urae.mini.world import Scene, other_scene, render, scene
from urae.statistics import Table

__all__ = ["CLAIMS", "STEPS", "broken_claims", "write_ladder"]

Draw = Callable[[Scene, int], Image.Image]
UNSEEN = 1_000_000
"""The recogniser was trained on scenes 0 to 9,999."""

CLAIMS: dict[str, tuple[tuple[str, ...], ...]] = {
    "psnr@truth": (("truth", "jpeg", "blur", "wrong caption", "shuffled"),),
    "mini_patch_fid@truth": (("truth", "jpeg", "blur"), ("truth", "shuffled")),
    "mini_patch_kid@truth": (("truth", "jpeg", "blur"), ("truth", "shuffled")),
    "mini_alignment": tuple(
        (better, worse) for better in ("truth", "jpeg", "blur") for worse in ("wrong caption", "shuffled")
    ),
    "mini_recognition": tuple((better, "shuffled") for better in ("truth", "jpeg", "wrong caption")),
    "stripes": (("truth", "shuffled"),),
    "grid": (("truth", "shuffled"),),
}
"""Column -> chains of steps, best first."""


def write_ladder(folder: Path | str, *, num: int, size: int = 256) -> dict[str, Path]:
    """`num` scenes on every step as PNGs that hold their prompts; folders by step, the best first."""
    scenes = [scene(UNSEEN + i) for i in range(num)]
    return {
        name: _write(Path(folder) / name.replace(" ", "_"), scenes, size, draw)
        for name, draw in STEPS.items()
    }


def broken_claims(table: Table) -> list[str]:
    """Each claim of `CLAIMS` on the columns of `table` that its numbers do not keep, in words."""
    directions = {column.name: column.direction for column in table.columns}
    broken = []
    for column in directions.keys() & CLAIMS.keys():
        values = {name: row[column].value for name, row in table.cells.items()}
        sign = 1 if directions[column] == "higher" else -1
        broken += [
            f"{column}: {better} {values[better]:.4g}, {worse} {values[worse]:.4g}"
            for better, worse in _pairs(column)
            if not sign * values[better] > sign * values[worse]
        ]
    return sorted(broken)


def _pairs(column: str) -> Iterator[tuple[str, str]]:
    for chain in CLAIMS[column]:
        yield from zip(chain, chain[1:], strict=False)


def _write(folder: Path, scenes: Iterable[Scene], size: int, draw: Draw) -> Path:
    for place, shown in enumerate(scenes):
        write_png(draw(shown, size), folder / f"{place:04d}.png", texts={"prompt": shown.caption()})
    return folder


def _truth(shown: Scene, size: int) -> Image.Image:
    return render(shown, size)


def _jpeg(shown: Scene, size: int) -> Image.Image:
    stream = io.BytesIO()
    render(shown, size).save(stream, "JPEG", quality=50)
    return Image.open(stream).convert("RGB")


def _blur(shown: Scene, size: int) -> Image.Image:
    return render(shown, size).filter(ImageFilter.GaussianBlur(size / 128))


def _wrong_caption(shown: Scene, size: int) -> Image.Image:
    return render(other_scene(shown, 0), size)


def _shuffled(shown: Scene, size: int) -> Image.Image:
    """4 x 4 tiles in one random order for all pictures, in which no two neighbours stay together."""
    image, side = render(shown, size), size // 4
    sheet = Image.new("RGB", image.size)
    for place, origin in enumerate(ORDER):
        row, column = divmod(origin, 4)
        box = (column * side, row * side, (column + 1) * side, (row + 1) * side)
        sheet.paste(image.crop(box), (place % 4 * side, place // 4 * side))
    return sheet


ORDER = (10, 0, 13, 7, 5, 15, 2, 8, 12, 6, 9, 3, 1, 11, 4, 14)
"""Of the tiles, row by row."""
STEPS: Mapping[str, Draw] = {
    "truth": _truth,
    "jpeg": _jpeg,
    "blur": _blur,
    "wrong caption": _wrong_caption,
    "shuffled": _shuffled,
}
"""Name -> the picture of a scene at a size, from the best to the worst."""

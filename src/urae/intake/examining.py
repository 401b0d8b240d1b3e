"""What a worker process does with one image: read, decode, measure, and keep a small picture of it."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_type_hints

from PIL import Image

from urae.data.formats import ListedImage
from urae.data.pixels import training_bucket
from urae.data.record import suffix_of
from urae.errors import BadFile
from urae.intake.measures import TILE, Measures, Tiles, measure
from urae.io import UNREADABLE_REASONS, Unreadable, decode, field_of, jpeg_of, typed, write_bytes

__all__ = ["CELL", "Detector", "Examiner", "cell_file", "check_line", "measures_of"]

Detector = Callable[[Image.Image], float]
"""A model of your own, for watermarks, text or taste: from an RGB image to a score. With several workers it travels
to each of them, so it is a function of a module or an object that can be pickled."""

MEASURING = 2
"""Raised when the same image would be measured differently."""

CELL, MARGIN = 160, 4
"""Height of the small picture kept of each image, px: the whole, and beside it a square of its finest detail."""


@dataclass(frozen=True, kw_only=True)
class Examiner:
    """Measures images for training at one size."""

    size: int
    detectors: Mapping[str, Detector]
    cells: Path
    """Folder for the small pictures."""

    @property
    def settings(self) -> str:
        """What the measures depend on beside the image. Of a detector this is its name."""
        return "/".join([f"{MEASURING}", f"{self.size}", *sorted(self.detectors)])

    def __call__(self, image: ListedImage) -> dict[str, Any]:
        """The line of the journal for an image."""
        line = {"item": image.name, "stamp": image.stamp, "settings": self.settings}
        try:
            content = image.place.read()
            return line | self._examined(decode(content, name=image.name), content)
        except Unreadable as error:
            return line | {"unreadable": error.reason, "detail": error.detail}

    def _examined(self, image: Image.Image, content: bytes) -> dict[str, Any]:
        bucket = training_bucket(image.size, self.size)
        digest, grey = hashlib.sha256(content).hexdigest(), image.convert("L")
        tiles = Tiles.of(grey, bucket)
        cell = _cell(image, tiles.most_textured())
        write_bytes(cell_file(self.cells, digest), jpeg_of(cell, quality=80))
        return {
            "id": digest,
            "suffix": suffix_of(content),
            "measures": asdict(measure(grey, tiles)),
            "scores": {name: _score(name, detector, image) for name, detector in self.detectors.items()},
        }


def check_line(line: Mapping[str, Any], *, name: str) -> None:
    """`BadFile` for what is no line of an examiner."""
    values = dict(line)
    for key in ("item", "stamp", "settings", "time"):
        field_of(values, key, str, name=name)
    if "unreadable" in line:
        fits = field_of(values, "unreadable", str, name=name) in UNREADABLE_REASONS
        field_of(values, "detail", str, name=name)
    else:
        names = [field_of(values, key, str, name=name) for key in ("id", "suffix")]
        fits = re.fullmatch(r"[0-9a-f]{64} \.[a-z]+", " ".join(names)) is not None
        measures, scores = (field_of(values, key, dict, name=name) for key in ("measures", "scores"))
        size = field_of(measures, "size", list, name=f"the measures of {name}")
        fits = fits and measures.keys() == get_type_hints(Measures).keys() and len(size) == 2
        numbers = [value for key, value in measures.items() if key != "size"]
        for number in (*numbers, *size, *scores.values()):
            typed(number, float, name=f"a measure in {name}")
    if not fits:
        raise BadFile(f"{name} is not what an import writes: remove it, then run again")


def measures_of(line: Mapping[str, Any]) -> Measures:
    """The measures in a line of the journal."""
    width, height = line["measures"]["size"]
    return Measures(**{**line["measures"], "size": (width, height)})


def _score(name: str, detector: Detector, image: Image.Image) -> float:
    score = float(detector(image))
    if not math.isfinite(score):
        raise ValueError(f"the detector {name} says {score}: expected a finite number")
    return score


def cell_file(cells: Path, digest: str) -> Path:
    """Where the small picture of an image lies."""
    return cells / digest[:2] / f"{digest}.jpg"


def _cell(image: Image.Image, box: tuple[int, int, int, int]) -> Image.Image:
    """The whole image, and beside it a square of the tile in `box`, at the size of training."""
    tile = image.crop((*box[:2], min(box[2], image.width), min(box[3], image.height)))
    scale = min(TILE / max(box[2] - box[0], 1), 1.0)
    cell = Image.new("RGB", (CELL * 5 // 2, CELL), "white")
    whole = _scaled(image, min((CELL * 3 / 2 - 2 * MARGIN) / image.width, CELL / image.height))
    cell.paste(whole, ((CELL * 3 // 2 - whole.width) // 2, (CELL - whole.height) // 2))
    cell.paste(_middle(_scaled(tile, scale)), (CELL * 3 // 2, 0))
    return cell


def _middle(image: Image.Image) -> Image.Image:
    left, top = max(image.width - CELL, 0) // 2, max(image.height - CELL, 0) // 2
    return image.crop((left, top, min(left + CELL, image.width), min(top + CELL, image.height)))


def _scaled(image: Image.Image, scale: float) -> Image.Image:
    size = max(round(image.width * scale), 1), max(round(image.height * scale), 1)
    return image.resize(size, Image.Resampling.LANCZOS)

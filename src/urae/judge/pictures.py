"""What the judge sees: candidates' pictures through one encoder, without metadata, whole or as native crops.

The whole picture is reduced to fit `max_side` and sent as JPEG (quality 95, full colour); GPT-4o, for one, then
looks at a 2048 px square at 768 px. So `detail` is judged on lossless crops of the native picture, at places that
are drawn from the prompt's id and thus the same for every candidate. Nothing is ever enlarged.
"""

from __future__ import annotations

import functools
import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from urae.io import picture_size, read_picture
from urae.metrics.matching import MatchedItem
from urae.pages import data_uri

__all__ = ["DETAIL", "View"]

DETAIL = "detail"


@dataclass(frozen=True, kw_only=True)
class View:
    """How a picture is shown."""

    max_side: int = field(default=2048, metadata={"min": 1})
    """Pixels of the longer side, to which whole pictures are reduced."""
    crop: int = field(default=768, metadata={"min": 1})
    """Side of the native crops for detail, pixels."""
    num_crops: int = field(default=3, metadata={"min": 1, "option": "--crops"})
    """Native crops of each picture."""

    def describe(self, aspect: str) -> str:
        """What an answer depends on, as text."""
        return json.dumps(asdict(self) | {"encoding": "png crops" if aspect == DETAIL else "jpeg 95 4:4:4"})

    def num_shown(self, aspect: str) -> int:
        """Pictures that the judge sees of one."""
        return self.num_crops if aspect == DETAIL else 1

    def check(self, item: MatchedItem, aspects: tuple[str, ...]) -> None:
        """`ValueError` where the judge would see one candidate larger than another."""
        sizes = {name: picture_size(path) for name, path in item.pictures.items()}
        native = ", ".join(f"{name} {width}x{height}" for name, (width, height) in sizes.items())
        if set(aspects) - {DETAIL} and len({self.fit(size) for size in sizes.values()}) > 1:
            raise ValueError(
                f"the pictures of {item.id!r} would be shown at different sizes ({native}): "
                "give a max side that all of them reach, and pictures of one shape"
            )
        if DETAIL not in aspects:
            return
        if len(set(sizes.values())) > 1:
            raise ValueError(
                f"detail is judged on native crops, and the pictures of {item.id!r} differ in size ({native}): "
                "leave detail out, or compare pictures of one size"
            )
        if min(min(size) for size in sizes.values()) < self.crop:
            raise ValueError(
                f"a crop of {self.crop} px does not fit into the pictures of {item.id!r} ({native}): "
                "give a smaller crop, or leave detail out"
            )

    def fit(self, size: tuple[int, int]) -> tuple[int, int]:
        """Size at which a picture of `size` is shown whole."""
        scale = min(1.0, self.max_side / max(size))
        return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))

    def show(self, path: Path, aspect: str, item_id: str) -> tuple[str, ...]:
        """Data URIs: the whole picture, or its crops for `detail`."""
        return _shown(self, path, aspect == DETAIL, item_id)

    def crops(self, size: tuple[int, int], item_id: str) -> list[tuple[int, int, int, int]]:
        """Boxes of the native crops, a function of the size and the prompt's id."""
        seed = int.from_bytes(hashlib.sha256(item_id.encode()).digest()[:8], "big")
        corners = np.random.default_rng(seed).random((self.num_crops, 2))
        lefts = [(round(x * (size[0] - self.crop)), round(y * (size[1] - self.crop))) for x, y in corners]
        return [(x, y, x + self.crop, y + self.crop) for x, y in lefts]


@functools.lru_cache(maxsize=16)
def _shown(view: View, path: Path, native: bool, item_id: str) -> tuple[str, ...]:
    picture = read_picture(path)
    if native:
        return tuple(data_uri(picture.crop(box), kind="png") for box in view.crops(picture.size, item_id))
    fitted = view.fit(picture.size)
    whole = picture if fitted == picture.size else picture.resize(fitted, Image.Resampling.LANCZOS)
    return (data_uri(whole, quality=95, subsampling=0),)

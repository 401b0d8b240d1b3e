"""From pictures to pixels of a bucket: resized to cover, cropped to the middle.

Images are never enlarged: what a small one lacks, training would teach the model to leave out.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from urae.data.manifest import listed
from urae.data.record import Record
from urae.io import read_picture
from urae.resolution import SIDE, Size, buckets, nearest_bucket

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["assign_buckets", "cover_scale", "cropped", "load_pixels", "training_buckets"]


def training_buckets(size: int) -> list[Size]:
    """The buckets for images of about `size` squared pixels: the same dozen shapes at every size, where the
    size allows, so that batches of one shape fill up."""
    coarse = range(max(size // 16, SIDE), 0, -1)
    fitting = (step for step in coarse if step % SIDE == 0 and size % step == 0)
    return buckets(size, multiple=next(fitting, SIDE))


def assign_buckets(records: Iterable[Record], size: int) -> list[tuple[Record, Size]]:
    """Each record with its bucket. Images that would have to be enlarged are a `ValueError` that lists
    them."""
    choices = training_buckets(size)
    assigned = [(record, nearest_bucket(record.size, choices)) for record in records]
    small = [
        f"{r.file} ({r.size[0]}x{r.size[1]})" for r, bucket in assigned if cover_scale(r.size, bucket) > 1
    ]
    if small:
        raise ValueError(
            f"{len(small)} images are too small for {size} px, and none is ever enlarged: "
            f"remove them or train at a smaller size: {listed(small)}"
        )
    return assigned


def load_pixels(path: Path, bucket: Size) -> Tensor:
    """The image as pixels (3, H, W) in [-1, 1] of the bucket's size. Raises `Unreadable`, and `ValueError` for
    one that would have to be enlarged."""
    return cropped(read_picture(path), bucket, name=path)


def cropped(image: Image.Image, bucket: Size, *, name: object) -> Tensor:
    """A decoded image as `load_pixels` returns it. `name` stands for it in a `ValueError`."""
    if cover_scale(image.size, bucket) > 1:
        raise ValueError(
            f"{name} has {image.width}x{image.height} px, too few for {bucket[0]}x{bucket[1]}, and none is ever "
            "enlarged: remove it or take a smaller size"
        )
    import torch  # here, since judging and importing images needs only their sizes and bytes

    values = np.asarray(_cover(image, bucket), dtype=np.float32)
    return torch.from_numpy(values / 127.5 - 1).permute(2, 0, 1)


def cover_scale(size: Size, bucket: Size) -> float:
    """By how much an image of this size is scaled to cover the bucket; above 1 it would be enlarged."""
    return max(bucket[0] / size[0], bucket[1] / size[1])


def _cover(image: Image.Image, bucket: Size) -> Image.Image:
    scale = cover_scale(image.size, bucket)
    width, height = (max(round(side * scale), least) for side, least in zip(image.size, bucket, strict=True))
    resized = image.resize((width, height), Image.Resampling.LANCZOS) if scale < 1 else image
    left, top = (width - bucket[0]) // 2, (height - bucket[1]) // 2
    return resized.crop((left, top, left + bucket[0], top + bucket[1]))

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

__all__ = [
    "assign_buckets",
    "cover_scale",
    "cropped",
    "load_pixels",
    "named_with_sizes",
    "split_by_size",
    "training_bucket",
    "training_buckets",
    "trains_at",
]

LEAST_AREA = 0.85
"""Of the square: 2560x1440, which services call 2K, has 0.88 of 2048x2048."""
LONGEST = 2.4
"""Long side over short side of an image's own bucket: 21:9 is 2.33."""


def training_buckets(size: int) -> list[Size]:
    """The buckets for images of about `size` squared pixels: the same dozen shapes at every size, where the
    size allows, so that batches of one shape fill up."""
    coarse = range(max(size // 16, SIDE), 0, -1)
    fitting = (step for step in coarse if step % SIDE == 0 and size % step == 0)
    return buckets(size, multiple=next(fitting, SIDE))


def training_bucket(image: Size, size: int) -> Size:
    """The bucket for an image of these (width, height) when training at `size` px.

    It is the nearest in shape of `training_buckets`. An image that does not fill that one gets a bucket of its own
    pixels, so that nothing a service calls 2K is lost to the grid (Ultra's 3:2 is 2496x1664, where the grid has
    2560x1664). It needs a long side of `size` px, `LEAST_AREA` of the square's area and sides of at most `LONGEST`
    to 1. An image too small even for that gets the nearest, and `cover_scale` is above 1 for it.
    """
    nearest = nearest_bucket(image, training_buckets(size))
    if cover_scale(image, nearest) <= 1:
        return nearest
    step = max(size // 64 // SIDE * SIDE, SIDE)
    short, long = (side // step * step for side in sorted(image))
    if short:
        long = min(long, round(size * size / short / step) * step)
    if max(image) < size or short * long < LEAST_AREA * size * size or long > LONGEST * short:
        return nearest
    return (long, short) if image[0] > image[1] else (short, long)


def trains_at(image: Size, size: int) -> bool:
    """Whether an image of this (width, height) is large enough to be trained on at `size` px."""
    return cover_scale(image, training_bucket(image, size)) <= 1


def split_by_size(records: Iterable[Record], size: int) -> tuple[list[Record], list[Record]]:
    """The records whose images can be trained on at `size` px, and those that are too small for it."""
    fitting: list[Record] = []
    small: list[Record] = []
    for record in records:
        (fitting if trains_at(record.size, size) else small).append(record)
    return fitting, small


def assign_buckets(records: Iterable[Record], size: int) -> list[tuple[Record, Size]]:
    """Each record with its bucket. Images that would have to be enlarged are a `ValueError` that lists
    them."""
    fitting, small = split_by_size(records, size)
    if small:
        raise ValueError(
            f"{len(small)} images are too small for {size} px, and images are never enlarged: "
            f"remove them or train at a smaller size: {named_with_sizes(small)}"
        )
    return [(record, training_bucket(record.size, size)) for record in fitting]


def named_with_sizes(records: Iterable[Record]) -> str:
    """The first few images, each with its size."""
    return listed([f"{record.file} ({record.size[0]}x{record.size[1]})" for record in records])


def load_pixels(path: Path, bucket: Size) -> Tensor:
    """The image as pixels (3, H, W) in [-1, 1] of the bucket's size. Raises `Unreadable`, and `ValueError` for
    one that would have to be enlarged."""
    return cropped(read_picture(path), bucket, name=path)


def cropped(image: Image.Image, bucket: Size, *, name: object) -> Tensor:
    """A decoded image as `load_pixels` returns it. `name` stands for it in a `ValueError`."""
    if cover_scale(image.size, bucket) > 1:
        raise ValueError(
            f"{name} has {image.width}x{image.height} px, too few for {bucket[0]}x{bucket[1]}, and images are never "
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

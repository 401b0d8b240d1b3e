"""From an image file to pixels of a bucket: upright, RGB, resized to cover, cropped to the middle.

Images are never enlarged: what a small one lacks, training would teach the model to leave out.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from urae.data.manifest import listed
from urae.data.record import Record
from urae.errors import BadFile
from urae.resolution import PIXELS_PER_TOKEN, Size, buckets, nearest_bucket

__all__ = ["assign_buckets", "load_pixels", "training_buckets"]


def training_buckets(size: int) -> list[Size]:
    """The buckets for images of about `size` squared pixels: the same dozen shapes at every size, where the
    size allows, so that batches of one shape fill up."""
    coarse = range(max(size // 16, PIXELS_PER_TOKEN), 0, -1)
    multiple = next(step for step in coarse if step % PIXELS_PER_TOKEN == 0 and size % step == 0)
    return buckets(size, multiple=multiple)


def assign_buckets(records: Iterable[Record], size: int) -> list[tuple[Record, Size]]:
    """Each record with its bucket. Images that would have to be enlarged are a `ValueError` that lists
    them."""
    choices = training_buckets(size)
    assigned = [(record, nearest_bucket(record.size, choices)) for record in records]
    small = [f"{r.file} ({r.size[0]}x{r.size[1]})" for r, bucket in assigned if _scale(r.size, bucket) > 1]
    if small:
        raise ValueError(
            f"{len(small)} images are too small for {size} px, and none is ever enlarged: "
            f"remove them or train at a smaller size: {listed(small)}"
        )
    return assigned


def load_pixels(path: Path, bucket: Size) -> Tensor:
    """The image as pixels (3, H, W) in [-1, 1] of the bucket's size. Unreadable or transparent is a
    `BadFile`."""
    try:
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file)
            image.load()
    except (OSError, SyntaxError) as error:
        raise BadFile(f"{path} cannot be read as an image ({error}): replace or remove it") from error
    cropped = np.asarray(_cover(_rgb(image, path), bucket), dtype=np.float32)
    return torch.from_numpy(cropped / 127.5 - 1).permute(2, 0, 1)


def _rgb(image: Image.Image, path: Path) -> Image.Image:
    if image.has_transparency_data and image.convert("RGBA").getchannel("A").getextrema()[0] != 255:
        raise BadFile(
            f"{path} is transparent in places, where it has no colour: put it on a background first"
        )
    return image.convert("RGB")


def _cover(image: Image.Image, bucket: Size) -> Image.Image:
    scale = _scale(image.size, bucket)
    width, height = (max(round(side * scale), least) for side, least in zip(image.size, bucket, strict=True))
    resized = image.resize((width, height), Image.Resampling.LANCZOS) if scale < 1 else image
    left, top = (width - bucket[0]) // 2, (height - bucket[1]) // 2
    return resized.crop((left, top, left + bucket[0], top + bucket[1]))


def _scale(size: Size, bucket: Size) -> float:
    return max(bucket[0] / size[0], bucket[1] / size[1])

"""From an image file to pixels of a bucket: upright, RGB, resized to cover, cropped to the middle.

One decoder serves every reader. It turns an image as its EXIF says, takes 16 bits to 8, converts CMYK and colour
profiles to sRGB, and refuses by a named reason what has no single right reading: transparent and animated
images, damaged files, CMYK without a profile, high dynamic range. Only the formats listed here are tried, so that a
file that calls itself a photograph does not reach the decoders of rarer ones.

Images are never enlarged: what a small one lacks, training would teach the model to leave out.
"""

from __future__ import annotations

import io
import struct
import threading
import warnings
from collections.abc import Iterable
from contextlib import AbstractContextManager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import ExifTags, Image, ImageCms, ImageOps, UnidentifiedImageError

from urae.data.manifest import listed
from urae.data.record import UNREADABLE, Record, read_file
from urae.errors import BadFile
from urae.resolution import SIDE, Size, buckets, nearest_bucket

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "UNREADABLE_REASONS",
    "Unreadable",
    "assign_buckets",
    "cover_scale",
    "cropped",
    "decode_image",
    "load_pixels",
    "read_bytes",
    "read_image",
    "training_buckets",
]

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "AVIF")

UNREADABLE_REASONS = {
    "missing": "cannot be opened",
    "empty": "has no bytes",
    "format": f"is none of {', '.join(FORMATS)}",
    "damaged": "cannot be read as an image",
    "bomb": "unpacks to more pixels than any picture has",
    "animated": "has several frames",
    "transparent": "is transparent in places, where it has no colour",
    "depth": "has values of unknown range",
    "colours": "has colours that cannot be told without a fitting profile",
}
"""Why an image file is refused: name -> what is said of the file."""

SRGB_GAMMA = 1 / 2.2
SRGB_PRIMARIES = (1, 2)
SRGB_TRANSFERS = (1, 2, 6, 13, 14, 15)
"""Numbers of ITU-T H.273: BT.709 or not specified; and the functions that viewers show like sRGB's."""
HEADERS = 2**16
"""Bytes at a file's beginning in which they stand."""

LEVELS_OF_ROUNDING = 2
"""A profile that moves no colour by more is sRGB under another name, and pixels stay as they are."""

OPAQUE = 250
"""Alpha from which on a pixel has its own colour, whatever lies behind it, but for 2%."""


class Unreadable(BadFile):
    """An image file that is damaged, or has no single right reading; `reason` is one of
    `UNREADABLE_REASONS`."""

    def __init__(self, name: object, reason: str, detail: str = "") -> None:
        remedy = "put it on a background first" if reason == "transparent" else "replace or remove it"
        said = UNREADABLE_REASONS[reason] + (f" ({detail})" if detail else "")
        super().__init__(f"{name} {said}: {remedy}")
        self.name, self.reason, self.detail = str(name), reason, detail

    def __reduce__(self) -> tuple[Any, ...]:
        # It travels between processes, and would be made anew from its message alone.
        return type(self), (self.name, self.reason, self.detail)


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
    return cropped(read_image(path), bucket, name=path)


def read_image(path: Path) -> Image.Image:
    """The image in this file: upright, 8-bit sRGB. Raises `Unreadable`."""
    return decode_image(read_bytes(path), name=path)


def read_bytes(path: Path) -> bytes:
    """The bytes of an image file. Raises `Unreadable` where there are none to be had."""
    try:
        return read_file(path)
    except OSError as error:
        raise Unreadable(path, "missing", error.strerror or "") from error


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


def decode_image(content: bytes, *, name: object) -> Image.Image:
    """The image in these bytes: upright, 8-bit sRGB. `name` stands for it in the `Unreadable` that is raised."""
    if not content:
        raise Unreadable(name, "empty")
    try:
        with _SILENCE:
            return _decoded(content, name)
    except UnidentifiedImageError as error:
        raise Unreadable(name, "damaged" if _begins_like_one(content) else "format") from error
    except Image.DecompressionBombError as error:
        raise Unreadable(name, "bomb") from error
    except UNREADABLE as error:
        raise Unreadable(name, "damaged", _first_line(error)) from error


def cover_scale(size: Size, bucket: Size) -> float:
    """By how much an image of this size is scaled to cover the bucket; above 1 it would be enlarged."""
    return max(bucket[0] / size[0], bucket[1] / size[1])


# --- decoding ----------------------------------------------------------------------------------------------


class _Silence(AbstractContextManager):
    """No warnings while any thread decodes. Pillow warns of damaged metadata, which cost no pixels, and of large
    pictures, which we want. `catch_warnings` alone would leave them off where two threads leave it crosswise."""

    def __init__(self) -> None:
        self.lock, self.inside, self.caught = threading.Lock(), 0, warnings.catch_warnings()

    def __enter__(self) -> None:
        with self.lock:
            self.inside += 1
            if self.inside == 1:
                self.caught = warnings.catch_warnings(action="ignore")
                self.caught.__enter__()

    def __exit__(self, *error: object) -> None:
        with self.lock:
            self.inside -= 1
            if self.inside == 0:
                self.caught.__exit__(None, None, None)


_SILENCE = _Silence()


def _decoded(content: bytes, name: object) -> Image.Image:
    with Image.open(io.BytesIO(content), formats=FORMATS) as file:
        # The further pictures in a camera's MPO file are other views or brightnesses of the first.
        num_frames = getattr(file, "n_frames", 1)
        if file.format != "MPO" and num_frames > 1:
            raise Unreadable(name, "animated", f"{num_frames} frames")
        _check_colours(file, content, name)
        file.verify()  # PNG's checksums, which decoding passes over.
    with Image.open(io.BytesIO(content), formats=FORMATS) as file:
        file.load()
        return _in_srgb(_opaque(ImageOps.exif_transpose(file), name), name)


def _check_colours(file: Image.Image, content: bytes, name: object) -> None:
    """Refuse what Pillow shows in other colours than the file means, and says nothing of it."""
    white_is_zero = file.format == "TIFF" and file.getexif().get(ExifTags.Base.PhotometricInterpretation) == 0
    if white_is_zero and file.mode.startswith("I;16"):
        raise Unreadable(name, "depth", "16 bits in which zero is white")
    if "icc_profile" in file.info:
        return
    gamma = file.info.get("gamma", SRGB_GAMMA)
    if "srgb" not in file.info and abs(gamma / SRGB_GAMMA - 1) > 0.05:
        raise Unreadable(name, "colours", f"values to the power of {gamma:g}")
    primaries, transfer = _code_points(content)
    if primaries not in SRGB_PRIMARIES or transfer not in SRGB_TRANSFERS:
        raise Unreadable(name, "colours", f"primaries {primaries}, transfer {transfer} of ITU-T H.273")


def _code_points(content: bytes) -> tuple[int, int]:
    """Primaries and transfer function by their numbers in ITU-T H.273, as an AVIF or PNG file names them: those of
    its `nclx` box or `cICP` chunk. Where there is none both are unspecified, 2."""
    box, chunk = content.find(b"colrnclx", 0, HEADERS), content.find(b"\0\0\0\4cICP", 0, HEADERS)
    if content[4:12] == b"ftypavif" and box >= 0:
        return struct.unpack_from(">HH", content, box + 8)
    if content.startswith(b"\x89PNG") and chunk >= 0:
        return content[chunk + 8], content[chunk + 9]
    return 2, 2


def _begins_like_one(content: bytes) -> bool:
    beginnings = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"II*\0", b"MM\0*")
    return content.startswith(beginnings) or content[8:12] == b"WEBP" or content[4:12] == b"ftypavif"


def _opaque(image: Image.Image, name: object) -> Image.Image:
    """In one of the modes RGB, L and CMYK, which is all that a colour profile describes."""
    if image.mode in ("RGB", "L", "CMYK") and "transparency" not in image.info:
        return image
    if image.mode.startswith("I;16"):
        pixels = np.asarray(image).astype(np.uint32)
        return _like(Image.fromarray(((pixels * 255 + 32767) // 65535).astype(np.uint8)), image)
    if image.mode in ("I", "F"):
        raise Unreadable(name, "depth", f"mode {image.mode}")
    if image.mode in ("LAB", "HSV"):
        raise Unreadable(name, "colours", image.mode)
    if image.has_transparency_data:
        least = int(np.asarray(image.convert("RGBA").getchannel("A")).min())
        if least < OPAQUE:
            raise Unreadable(name, "transparent", f"alpha down to {least} of 255")
    return _like(image.convert("L" if image.mode in ("1", "L", "LA", "La") else "RGB"), image)


def _like(converted: Image.Image, image: Image.Image) -> Image.Image:
    profile = image.info.get("icc_profile")
    converted.info = {"icc_profile": profile} if profile else {}
    return converted


def _in_srgb(image: Image.Image, name: object) -> Image.Image:
    profile = image.info.get("icc_profile")
    if not profile:
        if image.mode == "CMYK":
            raise Unreadable(name, "colours", "CMYK")
        return image.convert("RGB")
    try:
        image, transform = _fitted(image, profile)
    except (ImageCms.PyCMSError, OSError) as error:
        raise Unreadable(name, "colours", _first_line(error)) from error
    if transform is None:
        return image.convert("RGB")
    converted = ImageCms.applyTransform(image, transform)
    assert converted is not None  # as it is not done in place
    return converted


def _fitted(image: Image.Image, profile: bytes) -> tuple[Image.Image, ImageCms.ImageCmsTransform | None]:
    """The image in the profile's mode, with the way from there to sRGB."""
    space = ImageCms.ImageCmsProfile(io.BytesIO(profile)).profile.xcolor_space.strip()
    mode = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}.get(space)
    if mode is None or (mode != image.mode and (image.mode, mode) != ("L", "RGB")):
        raise ImageCms.PyCMSError(f"a profile for {space} on {image.mode}")
    return image.convert(mode), _to_srgb(profile, mode)


@lru_cache(maxsize=32)
def _to_srgb(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """None where the profile is sRGB under another name."""
    transform = ImageCms.buildTransform(
        ImageCms.ImageCmsProfile(io.BytesIO(profile)),
        ImageCms.createProfile("sRGB"),
        mode,
        "RGB",
        ImageCms.Intent.RELATIVE_COLORIMETRIC,
        ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )
    if mode == "CMYK":
        return transform
    probe = _probe(mode)
    before, after = (
        np.asarray(colours, dtype=int)
        for colours in (probe.convert("RGB"), ImageCms.applyTransform(probe, transform))
    )
    return transform if np.abs(after - before).max() > LEVELS_OF_ROUNDING else None


def _probe(mode: str) -> Image.Image:
    """Every colour of a coarse grid, or every grey."""
    levels = np.arange(256, dtype=np.uint8)
    if mode == "L":
        return Image.fromarray(levels[None])
    grid = np.stack(np.meshgrid(*[levels[::15]] * 3, indexing="ij"), axis=-1)
    return Image.fromarray(grid.reshape(1, -1, 3))


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__


def _cover(image: Image.Image, bucket: Size) -> Image.Image:
    scale = cover_scale(image.size, bucket)
    width, height = (max(round(side * scale), least) for side, least in zip(image.size, bucket, strict=True))
    resized = image.resize((width, height), Image.Resampling.LANCZOS) if scale < 1 else image
    left, top = (width - bucket[0]) // 2, (height - bucket[1]) // 2
    return resized.crop((left, top, left + bucket[0], top + bucket[1]))

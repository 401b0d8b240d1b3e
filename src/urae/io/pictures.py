"""The one decoder: from the bytes of an image file to an upright picture in 8-bit sRGB.

It turns an image as its EXIF says, takes 16 bits to 8, converts CMYK and colour profiles to sRGB, and refuses by a
named reason what has no single right reading: transparent and animated images, damaged files, CMYK without a profile,
high dynamic range. Only the formats listed here are tried, so that a file that calls itself a photograph does not reach
the decoders of rarer ones, or the programs that those start.
"""

from __future__ import annotations

import errno
import io
import os
import stat
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageCms, ImageFile, ImageOps, UnidentifiedImageError

from urae.errors import BadFile
from urae.io.screen import plain

__all__ = [
    "FOREIGN_SUFFIXES",
    "PICTURE_SUFFIXES",
    "UNREADABLE_REASONS",
    "Unreadable",
    "decode",
    "is_picture_name",
    "jpeg_of",
    "opened",
    "picture_size",
    "read_bytes",
    "read_picture",
    "read_span",
    "refusing",
    "size_of",
]

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "AVIF")
PICTURE_SUFFIXES = (".avif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
FOREIGN_SUFFIXES = (".bmp", ".gif", ".heic", ".heif", ".jp2", ".jxl", ".psd", ".svg")
"""Of images that are not read."""

MOST_PIXELS = 2**29
"""Of a picture; photographs of 200 megapixels are what 4K training wants."""
MOST_BYTES = 2**31
"""Of an image file."""

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

DAMAGED = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    RuntimeError,
    struct.error,
    zlib.error,
)
"""What Pillow's decoders raise on bytes that are no image."""

SRGB_GAMMA = 1 / 2.2
SRGB_PRIMARIES = (1, 2)
SRGB_TRANSFERS = (1, 2, 6, 13, 14, 15)
"""Numbers of ITU-T H.273: BT.709 or not specified; and the functions that viewers show like sRGB's."""
HEADERS = 2**16
"""Bytes at an AVIF file's beginning in which they stand."""
PNG = b"\x89PNG\r\n\x1a\n"
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Of a PNG, by its type of colour."""
PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""Of an interlaced PNG: first column and row, steps between columns and rows."""

LEVELS_OF_ROUNDING = 2
"""A profile that moves no colour by more is sRGB under another name, and pixels stay as they are."""

OPAQUE = 250
"""Alpha from which on a pixel has its own colour, whatever lies behind it, but for 2%."""


class Unreadable(BadFile):
    """An image file that is damaged, or has no single right reading; `reason` is one of
    `UNREADABLE_REASONS`."""

    def __init__(self, name: object, reason: str, detail: str = "") -> None:
        remedy = "put it on a background first" if reason == "transparent" else "replace or remove it"
        said = UNREADABLE_REASONS[reason] + (f" ({plain(detail)})" if detail else "")
        super().__init__(f"{plain(name)} {said}: {remedy}")
        self.name, self.reason, self.detail = str(name), reason, detail

    def __reduce__(self) -> tuple[Any, ...]:
        # It travels between processes, and would be made anew from its message alone.
        return type(self), (self.name, self.reason, self.detail)


def is_picture_name(path: Path | str) -> bool:
    """Whether the name ends as those of pictures that are read."""
    return Path(path).suffix.lower() in PICTURE_SUFFIXES


def read_picture(path: Path | str) -> Image.Image:
    """The image in a file: upright, 8-bit sRGB. Raises `Unreadable`."""
    return decode(read_bytes(path), name=path)


def read_bytes(path: Path | str) -> bytes:
    """The bytes of an image file. Raises `Unreadable` where there are none to be had."""
    with opened(path) as file:
        return read_span(file, os.fstat(file.fileno()).st_size)


def read_span(file: BinaryIO, length: int) -> bytes:
    """The next bytes of a file; `OSError` where there are more than any image has."""
    if length > MOST_BYTES:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    return file.read(length)


def decode(content: bytes, *, name: object) -> Image.Image:
    """The image in these bytes: upright, 8-bit sRGB. `name` stands for it in the `Unreadable` that is raised."""
    with refusing(content[:16], name):
        return _decoded(content, name)


def picture_size(path: Path | str) -> tuple[int, int]:
    """Width and height, px, of the image in a file when it is upright; its pixels are not read. Raises
    `Unreadable`."""
    with opened(path) as file:
        return _size(file, path)


def size_of(content: bytes, *, name: object) -> tuple[int, int]:
    """The same of the image in these bytes."""
    return _size(io.BytesIO(content), name)


def jpeg_of(image: Image.Image, *, quality: int) -> bytes:
    """The bytes of a JPEG, to be written by `write_bytes`. Pillow's own writing passes over one that fell short, and so
    leaves half a picture on a full disk."""
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return stream.getvalue()


# --- Pillow, under our rules -------------------------------------------------------------------------------------


class _Rules(AbstractContextManager):
    """While any thread decodes: our limit of pixels, no truncated images, no warnings.

    Pillow has these for the whole process alone, and some decoders ask for the limit by themselves. It warns of damaged
    metadata, which cost no pixels. The first thread in sets them and the last one out puts them back: each by itself
    would leave them changed where two leave crosswise.
    """

    def __init__(self) -> None:
        self.lock, self.inside, self.caught = threading.Lock(), 0, warnings.catch_warnings()
        self.before: tuple[int | None, bool] = (None, False)

    def __enter__(self) -> None:
        with self.lock:
            self.inside += 1
            if self.inside == 1:
                self.caught = warnings.catch_warnings(action="ignore")
                self.caught.__enter__()
                self.before = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
                # Pillow refuses twice as many.
                Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = MOST_PIXELS // 2, False

    def __exit__(self, *error: object) -> None:
        with self.lock:
            self.inside -= 1
            if self.inside == 0:
                Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = self.before
                self.caught.__exit__(None, None, None)


_RULES = _Rules()


@contextmanager
def refusing(beginning: bytes, name: object) -> Iterator[None]:
    """Whatever Pillow raises on a file that begins so, as `Unreadable`."""
    if not beginning:
        raise Unreadable(name, "empty")
    try:
        with _RULES:
            yield
    except UnidentifiedImageError as error:
        raise Unreadable(name, "damaged" if _begins_like_one(beginning) else "format") from error
    except (Image.DecompressionBombError, MemoryError) as error:
        raise Unreadable(name, "bomb") from error
    except DAMAGED as error:
        raise Unreadable(name, "damaged", _first_line(error)) from error


@contextmanager
def opened(path: Path | str) -> Iterator[BinaryIO]:
    """A plain file. `Unreadable` where it is none or cannot be opened."""
    try:
        if not stat.S_ISREG(Path(path).stat().st_mode):
            raise OSError(errno.EINVAL, "no plain file")  # A pipe would be waited for without end.
        with Path(path).open("rb") as file:
            yield file
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        raise Unreadable(path, "missing", getattr(error, "strerror", None) or str(error)) from error


def _decoded(content: bytes, name: object) -> Image.Image:
    with Image.open(io.BytesIO(content), formats=FORMATS) as file:
        # The further pictures in a camera's MPO file are other views or brightnesses of the first.
        num_frames = getattr(file, "n_frames", 1)
        if file.format != "MPO" and num_frames > 1:
            raise Unreadable(name, "animated", f"{num_frames} frames")
        _check_colours(file, content, name)
        file.verify()  # PNG's checksums, which decoding passes over.
    if content.startswith(PNG):
        _check_rows(content)
    with Image.open(io.BytesIO(content), formats=FORMATS) as file:
        file.load()
        return _in_srgb(_opaque(ImageOps.exif_transpose(file), name), name)


def _size(file: BinaryIO, name: object) -> tuple[int, int]:
    beginning = file.read(16)
    file.seek(len(PNG))
    with refusing(beginning, name):
        # Pillow decodes a PNG to learn whether EXIF stands behind its pixels.
        decoded = beginning.startswith(PNG) and _says_more_behind(file)
        file.seek(0)
        with Image.open(file, formats=FORMATS) as image:
            exif = image.getexif() if decoded or image.format != "PNG" else Image.Image.getexif(image)
            # Pillow turns a TIFF itself, and says its size accordingly.
            orientation = 1 if image.format == "TIFF" else exif.get(ExifTags.Base.Orientation, 1)
            return image.size[::-1] if orientation in (5, 6, 7, 8) else image.size


def _says_more_behind(file: BinaryIO) -> bool:
    kinds = [kind for kind, _ in _chunks(file)]
    behind = kinds[kinds.index(b"IDAT") :] if b"IDAT" in kinds else []
    return not {b"eXIf", b"tEXt", b"zTXt", b"iTXt"}.isdisjoint(behind)


def _begins_like_one(content: bytes) -> bool:
    beginnings = (b"\xff\xd8\xff", PNG, b"II*\0", b"MM\0*")
    return content.startswith(beginnings) or content[8:12] == b"WEBP" or content[4:12] == b"ftypavif"


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__


# --- the chunks of a PNG -----------------------------------------------------------------------------------------


def _chunks(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """The kind and length of each chunk behind the signature; the file stands at its content."""
    place = file.tell()
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        yield kind, length
        place += 12 + length
        file.seek(place)


def _check_rows(content: bytes) -> None:
    """Pillow leaves rows black where a PNG's data end well but too soon."""
    file = io.BytesIO(content)
    file.seek(len(PNG))
    header, unpacker, num = b"", zlib.decompressobj(), 0
    for kind, length in _chunks(file):
        if kind == b"IHDR":
            header = file.read(length)
        elif kind == b"IDAT":
            num += _unpacked(unpacker, file.read(length))
    if num < _row_bytes(*struct.unpack(">IIBB2xB", header)):
        raise OSError("it ends before its last row")


def _unpacked(unpacker: Any, packed: bytes) -> int:
    num = 0
    while packed and not unpacker.eof:
        num += len(unpacker.decompress(packed, 2**20))
        packed = unpacker.unconsumed_tail
    return num


def _row_bytes(width: int, height: int, bits: int, colour: int, interlaced: int) -> int:
    """Of all rows, each with the byte that names its filter."""
    num = 0
    for left, top, across, down in PASSES if interlaced else ((0, 0, 1, 1),):
        columns, rows = -(-max(width - left, 0) // across), -(-max(height - top, 0) // down)
        num += rows * (1 + -(-columns * bits * CHANNELS[colour] // 8)) if columns else 0
    return num


# --- colours -----------------------------------------------------------------------------------------------------


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
    box = content.find(b"colrnclx", 0, HEADERS)
    if content[4:12] == b"ftypavif" and box >= 0:
        return struct.unpack_from(">HH", content, box + 8)
    if content.startswith(PNG):
        file = io.BytesIO(content)
        file.seek(len(PNG))
        points = (file.read(length) for kind, length in _chunks(file) if kind == b"cICP")
        return struct.unpack(">BB2x", next(points, b"\2\2\0\0"))
    return 2, 2


def _opaque(image: Image.Image, name: object) -> Image.Image:
    """In one of the modes RGB, L and CMYK, which is all that a colour profile describes."""
    if image.mode in ("RGB", "L", "CMYK") and "transparency" not in image.info:
        return image
    if image.mode.startswith("I;16"):
        # By a table: the numbers themselves would take four bytes a pixel, several times over.
        table = ((np.arange(2**16) * 255 + 32767) // 65535).astype(np.uint8)
        return _like(Image.fromarray(table[np.asarray(image)]), image)
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

"""Texts inside picture files: chunks of a PNG, EXIF of a JPEG or WebP.

A text has the same key wherever it lies. In EXIF, "parameters" is the UserComment, as AUTOMATIC1111 writes it, and
"urae" the MakerNote; "prompt" and "workflow" stand in Make and Model, where ComfyUI's nodes put them.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import ExifTags, Image, PngImagePlugin

from urae.io.files import write_bytes, writing
from urae.io.pictures import PNG, opened, refusing

__all__ = ["WRITTEN_FORMATS", "check_format", "picture_texts", "write_picture", "write_png"]

WRITTEN_FORMATS = {"png": ".png", "jpeg": ".jpg", "webp": ".webp"}
"""Of pictures that are written, and how their names end."""
LARGEST = {"png": 2**31 - 1, "jpeg": 65_500, "webp": 16_383}
"""Sides, px."""
QUALITY = 95
LONGEST = 2**20
"""Characters of a text: a graph of ComfyUI has some ten thousand."""
MOST_EXIF = 65_500
"""Bytes in a JPEG."""
OURS, UNICODE, ASCII = b"urae\0", b"UNICODE\0", b"ASCII\0\0\0"
"""How a MakerNote and a UserComment begin."""


def picture_texts(path: Path | str) -> dict[str, str]:
    """The texts of a PNG, before its pixels, or of a JPEG or WebP, by their keys; the pixels unread, and texts left out
    that are longer than any tool's. Raises `Unreadable`."""
    with opened(path) as file:
        beginning = file.read(16)
        file.seek(0)
        if beginning.startswith(PNG):
            with refusing(beginning, path), Image.open(file, formats=("PNG",)) as image:
                # Pillow keeps other things there too, such as an ICC profile in bytes.
                return _short(
                    {str(key): str(text) for key, text in image.info.items() if isinstance(text, str)}
                )
        if beginning.startswith(b"\xff\xd8\xff") or beginning[8:12] == b"WEBP":
            with refusing(beginning, path), Image.open(file, formats=("JPEG", "WEBP")) as image:
                return _short(dict(_exif_texts(image.getexif())))
    return {}


def check_format(name: str, size: tuple[int, int]) -> None:
    """ValueError for a format that is not written, or that holds no picture of (width, height)."""
    if name not in WRITTEN_FORMATS:
        raise ValueError(f"format is {name!r}: expected one of {', '.join(WRITTEN_FORMATS)}")
    if max(size) > LARGEST[name]:
        raise ValueError(
            f"{size[0]}x{size[1]} is more than a {name} file holds, {LARGEST[name]} px a side: take another format"
        )


def write_picture(
    image: Image.Image, path: Path | str, *, texts: Mapping[str, str], replace: bool = True
) -> Path:
    """Write a PNG, JPEG or WebP, by the ending, with these texts, complete or not at all. `ValueError` for another
    ending and for texts that the format has no place for; raises `CannotWrite`."""
    path = Path(path)
    kind = {".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}.get(path.suffix.lower())
    if kind is None:
        return write_png(image, path, texts=texts, replace=replace)
    stream = io.BytesIO()
    ways: dict[str, Any] = {"subsampling": "4:4:4"} if kind == "JPEG" else {}
    image.save(stream, kind, quality=QUALITY, exif=_exif(texts, path), **ways)
    write_bytes(path, stream.getvalue(), replace=replace)
    return path


def write_png(
    image: Image.Image, path: Path | str, *, texts: Mapping[str, str], replace: bool = True
) -> Path:
    """Write a PNG with text chunks, complete or not at all. `ValueError` for another ending; raises `CannotWrite`."""
    path = Path(path)
    if path.suffix != ".png":
        raise ValueError(f"path is {path}: expected a name that ends in .png")
    chunks = PngImagePlugin.PngInfo()
    for key, text in texts.items():
        chunks.add_text(key, text)
    with writing(path, replace=replace) as temporary:
        image.save(temporary, format="png", pnginfo=chunks)
    return path


def _short(texts: Mapping[str, str]) -> dict[str, str]:
    return {key: text for key, text in texts.items() if len(text) <= LONGEST}


def _exif_texts(exif: Any) -> Any:
    for tag in (ExifTags.Base.Make, ExifTags.Base.Model):
        key, colon, text = str(exif.get(tag, "")).partition(":")
        if colon and key in ("prompt", "workflow"):
            yield key, text
    inner = exif.get_ifd(ExifTags.IFD.Exif)
    note, comment = (inner.get(tag, b"") for tag in (ExifTags.Base.MakerNote, ExifTags.Base.UserComment))
    if isinstance(note, bytes) and note.startswith(OURS):
        yield "urae", note.removeprefix(OURS).decode()
    if isinstance(comment, bytes) and comment.startswith((UNICODE, ASCII)):
        # EXIF leaves the order of bytes open; the first character is one of Latin text nearly always.
        order = "utf-16-be" if comment[8:9] == b"\0" else "utf-16-le"
        yield "parameters", comment[8:].decode(order if comment.startswith(UNICODE) else "ascii")


def _exif(texts: Mapping[str, str], path: Path) -> Image.Exif:
    if others := texts.keys() - {"urae", "parameters"}:
        raise ValueError(f"{path} has no place for the text {min(others)!r}: save the picture as PNG")
    exif = Image.Exif()
    inner = exif.get_ifd(ExifTags.IFD.Exif)
    if "urae" in texts:
        exif[ExifTags.Base.Software] = "urae"
        inner[ExifTags.Base.MakerNote] = OURS + texts["urae"].encode()
    if "parameters" in texts:
        inner[ExifTags.Base.UserComment] = UNICODE + texts["parameters"].encode("utf-16-be")
    if len(exif.tobytes()) > MOST_EXIF:
        raise ValueError(
            f"the metadata of {path}, its prompt above all, are too long for the format: save it as PNG"
        )
    return exif

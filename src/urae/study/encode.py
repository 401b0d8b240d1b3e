"""The same encoder for every candidate: what a file says about its maker must not reach a rater.

A picture is turned upright, brought to sRGB, and written anew without metadata: once as it is, for the view at
100%, and once reduced, for the view that fits the screen. Nothing is enlarged.
"""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image, ImageCms, ImageOps

from urae.errors import BadFile
from urae.study.manifest import Encoding

__all__ = ["encode", "read_picture"]

EIGHT_BIT = ("1", "L", "LA", "P", "PA", "RGB", "RGBA")


def read_picture(path: Path) -> Image.Image:
    """Upright, 8-bit sRGB, nothing but pixels. `BadFile` where it cannot be read or has transparent places."""
    try:
        with Image.open(path) as opened:
            upright = ImageOps.exif_transpose(opened)
            upright.load()
    except (OSError, SyntaxError) as error:
        raise BadFile(f"{path} cannot be read as a picture: {error}") from error
    if upright.mode not in EIGHT_BIT:
        raise BadFile(f"{path} has pixels of kind {upright.mode}: convert it to 8-bit RGB first")
    if upright.has_transparency_data and upright.convert("RGBA").getchannel("A").getextrema()[0] != 255:
        raise BadFile(f"{path} is transparent in places: put it on a background first")
    return _in_srgb(upright)


def encode(picture: Image.Image, native: Path, preview: Path, *, encoding: Encoding, side: int) -> None:
    """Write `native` as it is and `preview` reduced to fit `side` pixels."""
    if encoding == "png":
        picture.save(native, "PNG")
    else:
        picture.save(native, "JPEG", quality=97, subsampling=0)
    small = picture.copy()
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    small.save(preview, "JPEG", quality=92, subsampling=0)


def _in_srgb(picture: Image.Image) -> Image.Image:
    profile, converted = picture.info.get("icc_profile"), picture.convert("RGB")
    if profile and picture.mode in ("RGB", "RGBA"):
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        converted = ImageCms.profileToProfile(converted, source, ImageCms.createProfile("sRGB")) or converted
    # A new image has no metadata to hand on.
    return Image.frombytes("RGB", converted.size, converted.tobytes())

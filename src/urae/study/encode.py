"""The same encoder for every candidate: what a file says about its maker must not reach a rater.

A picture is read upright and in sRGB, and written anew without metadata: once as it is, for the view at 100%, and once
reduced, for the view that fits the screen. Nothing is enlarged.
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from urae.io import thumbnail
from urae.study.manifest import Encoding

__all__ = ["encode"]


def encode(picture: Image.Image, native: Path, preview: Path, *, encoding: Encoding, side: int) -> None:
    """Write `native` as it is and `preview` reduced to fit `side` pixels."""
    # A new image has no metadata to hand on.
    bare = Image.frombytes("RGB", picture.size, picture.tobytes())
    if encoding == "png":
        bare.save(native, "PNG")
    else:
        bare.save(native, "JPEG", quality=97, subsampling=0)
    thumbnail(bare, side).save(preview, "JPEG", quality=92, subsampling=0)

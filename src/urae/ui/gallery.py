"""The pictures that pages may show: those of the folder, looked up by their names and never by a path."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from PIL import Image

from urae.io import decode, jpeg_of, picture_size, read_picture, write_bytes, write_png
from urae.pages import thumbnail
from urae.provenance import Provenance, claimed_provenance

__all__ = ["Gallery"]

THUMBNAIL = 384
"""Side of small pictures, pixels."""


class Gallery:
    """Finished pictures in `out`, and pictures of the user's own in a folder beside the jobs."""

    def __init__(self, out: Path, kept: Path) -> None:
        self.out, self.own, self.thumbs = out, kept / "own", kept / "thumbs"

    def path(self, name: str) -> Path:
        """The file of this name. LookupError where there is none."""
        for folder in (self.out, self.own):
            if name in {path.name for path in folder.glob("*.png")}:
                return folder / name
        raise LookupError(name)

    def newest(self, most: int) -> list[str]:
        """Names of the finished pictures, the newest first."""
        files = sorted(self.out.glob("*.png"), key=lambda path: path.stat().st_mtime, reverse=True)
        return [path.name for path in files[:most]]

    def size(self, name: str) -> tuple[int, int]:
        """(width, height) in pixels."""
        return picture_size(self.path(name))

    def told(self, name: str) -> dict[str, Any]:
        """What a picture of ours was made with, by name; empty for another one."""
        made = claimed_provenance(self.path(name))
        return {} if made is None else _shown(made)

    def thumb(self, name: str) -> Path:
        """A small JPEG of it."""
        path = self.path(name)
        small = self.thumbs / f"{name}-{path.stat().st_mtime_ns}.jpg"
        if not small.exists():
            write_bytes(small, jpeg_of(thumbnail(read_picture(path), THUMBNAIL), quality=88))
        return small

    def keep(self, content: bytes) -> str:
        """Take in a picture of the user's own, upright and sRGB; its name. Raises `Unreadable`."""
        picture: Image.Image = decode(content, name="your picture")
        name = f"own-{hashlib.sha256(content).hexdigest()[:16]}.png"
        write_png(picture, self.own / name, texts={})
        return name


def _shown(made: Provenance) -> dict[str, Any]:
    return {
        key: text
        for key, text in made.to_info().items()
        if key not in ("versions", "options") or text != "{}"
    }

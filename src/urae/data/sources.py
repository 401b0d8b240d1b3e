"""From what a user names as data to a cache: a folder, a manifest, rendered scenes, or a cache itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from urae.backbones import backbone_of
from urae.data.cache import Cache, cache, open_cache
from urae.data.scenes import is_scenes, render_scenes

__all__ = ["cache_folder", "cached"]


def cached(pipe: Any, source: str, *, size: int, scenes: Path) -> Cache:
    """The cache of this data at this size for this pipeline, made or completed if need be.

    source: a folder of captioned images, a manifest, scenes such as "mini:clean:384" (rendered into the
    folder `scenes`), or a cache, which must be of this size (`ValueError`) and this pipeline (`StaleCache`).
    """
    if is_scenes(source):
        source = str(render_scenes(source, scenes, size=size))
    folder = cache_folder(pipe, source, size=size)
    if folder == Path(source):
        return _checked(open_cache(folder), pipe, size=size)
    return cache(pipe, source, folder, size=size)


def cache_folder(pipe: Any, source: str | Path, *, size: int) -> Path:
    """Where the cache of this data lies: beside it, under a name that tells sizes and models apart."""
    path, backbone = Path(source), backbone_of(pipe)
    if (path / "cache.json").is_file():
        return path
    name = f"{size}px-{backbone.latent_identity(pipe)[:8]}-{backbone.text_identity(pipe)[:8]}"
    return (path / "cache" if path.is_dir() else path.with_suffix(".cache")) / name


def _checked(opened: Cache, pipe: Any, *, size: int) -> Cache:
    if opened.size != size:
        raise ValueError(
            f"{opened.path} was cached at {opened.size} px, asked for {size} px: cache it at that size"
        )
    opened.check(pipe)
    return opened

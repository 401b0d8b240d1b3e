"""From what a user names as data to caches: folders, manifests, rendered scenes, caches, in any mix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from urae.data.cache_files import is_url
from urae.data.cache_format import Cache, open_cache
from urae.data.caching import cache
from urae.data.dataset import CachedDataset, Source
from urae.data.manifest import MANIFEST, is_hidden
from urae.data.scenes import is_scenes, render_scenes, scenes_named
from urae.execution import on_main
from urae.families import family_of
from urae.io import is_picture_name, read_lines

__all__ = ["cache_folder", "cached", "cached_dataset", "num_images", "split_mix"]


def cached_dataset(
    pipe: Any, data: str, *, size: int, scenes: Path, device: torch.device | str = ""
) -> CachedDataset:
    """The data set that `data` names: one source, or several with their shares, as in
    "data/synthetic:0.7,data/real:0.3"; see `cached`."""
    made = [
        (cached(pipe, source, size=size, scenes=scenes, device=device), share)
        for source, share in split_mix(data)
    ]
    return CachedDataset(tuple(Source(cache=c, entries=c.entries, share=share) for c, share in made))


def cached(pipe: Any, source: str, *, size: int, scenes: Path, device: torch.device | str = "") -> Cache:
    """The cache of this data at this size for this pipeline, made or completed if need be, on `device` ("" is
    where the encoders are). Under `torchrun` the processes share the work.

    source: a folder of captioned images, a manifest, scenes such as "mini:clean:384" (rendered into the
    folder `scenes`), or a cache, which must be of this size (`ValueError`) and this pipeline (`StaleCache`).
    """
    if is_scenes(source):
        source = str(on_main(lambda: render_scenes(source, scenes, size=size)))
    if is_url(source) or (Path(source) / "cache.json").is_file():
        return _checked(open_cache(source), pipe, size=size)
    folder = on_main(lambda: cache_folder(pipe, source, size=size))
    # What is damaged is found when it is read; to read everything first would take as long as an epoch.
    return cache(pipe, source, folder, size=size, device=device, verify=False)


def cache_folder(pipe: Any, source: str | Path, *, size: int, form: str = "full") -> Path:
    """Where the cache of this data lies: beside it, under a name that tells sizes, models and forms apart. A folder and
    the manifest in it are one data set and have one cache; one that is there is found under either name."""
    family = family_of(pipe)
    name = f"{size}px-{family.latents.identity(pipe)[:8]}-{family.text.identity(pipe)[:8]}"
    name += "" if form == "full" else f"-{form}"
    places = [place / name for place in _places(Path(source))]
    return next((place for place in places if (place / "cache.json").is_file()), places[0])


def _places(path: Path) -> list[Path]:
    """Where caches of this data may lie, the usual place first."""
    manifest = path / MANIFEST if path.is_dir() else path
    inside, beside = manifest.parent / "cache", manifest.with_suffix(".cache")
    if manifest.name != MANIFEST:
        return [beside]
    return [beside, inside] if manifest.is_file() else [inside]


def num_images(data: str) -> int:
    """How many images `data` names, none of them read; 0 where that is not known, as of what is not there."""
    return sum(_num_images(source) for source, _ in split_mix(data))


def _num_images(source: str) -> int:
    if is_scenes(source):
        return scenes_named(source)[1]
    path = Path(source)
    lists = [path / "records.jsonl", path / MANIFEST] if path.is_dir() else [path] * (path.suffix == ".jsonl")
    if listed := next((one for one in lists if one.is_file()), None):
        return sum(1 for _, line in read_lines(listed) if line.strip())
    return sum(is_picture_name(file) and not is_hidden(file, path) for file in path.rglob("*"))


def split_mix(data: str) -> list[tuple[str, float]]:
    """The sources that `data` names, each with its share."""
    if "," not in data or Path(data).exists():
        return [(data, 1.0)]
    parts = [part.strip().rpartition(":") for part in data.split(",")]
    try:
        return [(source, float(share)) for source, _, share in parts]
    except ValueError as error:
        raise ValueError(
            f"data is {data!r}: expected each of several sources with its share, such as data/a:0.7,data/b:0.3"
        ) from error


def _checked(opened: Cache, pipe: Any, *, size: int) -> Cache:
    if opened.size != size:
        raise ValueError(
            f"{opened.path} was cached at {opened.size} px, asked for {size} px: cache it at that size"
        )
    opened.check(pipe)
    return opened

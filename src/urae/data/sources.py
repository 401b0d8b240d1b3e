"""From what a user names as data to caches: folders, manifests, rendered scenes, caches, in any mix."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from urae.data.cache_files import is_url
from urae.data.cache_format import Cache, open_cache
from urae.data.caching import cache
from urae.data.dataset import CachedDataset, Source
from urae.data.manifest import MANIFEST, is_hidden
from urae.data.scenes import is_scenes, render_scenes, scenes_named
from urae.errors import CannotWrite
from urae.execution import in_all, on_main
from urae.families import family_of
from urae.io import Progress, check_can_write, is_picture_name, read_lines

__all__ = ["cache_folder", "cached", "cached_dataset", "num_images", "public_name", "split_mix"]

ELSEWHERE = "name another folder for it, by cache=FOLDER in training or --out FOLDER in urae data cache"


def cached_dataset(
    pipe: Any,
    data: str,
    *,
    size: int,
    scenes: Path,
    device: torch.device | str = "",
    folder: str = "",
    trigger: str = "",
) -> CachedDataset:
    """The data set that `data` names: one source, or several with their shares, as in
    "data/synthetic:0.7,data/real:0.3"; see `cached`."""
    mix = split_mix(data)
    if folder and all(_is_cache(source) for source, _ in mix):
        raise ValueError(f"cache={folder} has no effect on {data}, which is cached already: leave it out")
    made = [
        (cached(pipe, source, size=size, scenes=scenes, device=device, folder=folder, trigger=trigger), share)
        for source, share in mix
    ]
    return CachedDataset(tuple(Source(cache=c, entries=c.entries, share=share) for c, share in made))


def cached(
    pipe: Any,
    source: str,
    *,
    size: int,
    scenes: Path,
    device: torch.device | str = "",
    folder: str = "",
    trigger: str = "",
) -> Cache:
    """The cache of this data at this size for this pipeline, made or completed if need be, on `device` ("" is
    where the encoders are). Under `torchrun` the processes share the work.

    source: a folder of captioned images, a manifest, scenes such as "mini:clean:384" (rendered into the
    folder `scenes`), or a cache, which must be of this size (`ValueError`) and this pipeline (`StaleCache`).
    folder: where caches go; "" is beside the data (`cache_folder`). trigger: put before every caption, which a cache
    cannot do any more (`ValueError`).
    """
    if is_scenes(source):
        source = str(on_main(lambda: render_scenes(source, scenes, size=size)))
    # The first process says what it is: others, which do not see it, would wait elsewhere.
    if on_main(lambda: _is_cache(source)):
        if trigger:
            raise ValueError(
                f"the trigger {trigger!r} has no effect on {source}, whose captions are embedded: give the pictures"
            )
        return in_all(lambda: _checked(open_cache(source), pipe, size=size))
    place, form = on_main(lambda: _found_or_new(pipe, source, size=size, folder=folder, trigger=trigger))
    # What is damaged is found when it is read; to read everything first would take as long as an epoch.
    return cache(pipe, source, place, size=size, form=form, device=device, verify=False, trigger=trigger)


def cache_folder(
    pipe: Any,
    source: str | Path,
    *,
    size: int,
    form: str = "full",
    folder: str | Path = "",
    trigger: str = "",
) -> Path:
    """Where the cache of this data lies, under a name that tells sizes, models, forms and triggers apart.

    One data set has one cache, however it is named: the folder, the manifest in it, by links, from here or from the
    root. It lies beside the data's folder, never in it: `photos.cache` for `photos` and `photos/manifest.jsonl`,
    `photos.cache/few` for `photos/few.jsonl`. One that an earlier version put into the data's folder is found there.
    folder: where else it goes. Raises `ValueError` where there is nothing beside the data's folder, which is a disk of
    its own.
    """
    family = family_of(pipe)
    name = f"{size}px-{family.latents.identity(pipe)[:8]}-{family.text.identity(pipe)[:8]}"
    name += "" if form == "full" else f"-{form}"
    name += f"-{hashlib.sha256(trigger.encode()).hexdigest()[:8]}" if trigger else ""
    data, part = _one_name(Path(source))
    places = [place / name for place in _places(data, part, folder)]
    there = next((place for place in places if _is_cache(place)), None)
    return there or _new(places[0], data, asked_for=bool(folder))


def _new(place: Path, data: Path, *, asked_for: bool) -> Path:
    if data.is_mount() and not asked_for:
        raise ValueError(f"{data} is the root of a disk, so its cache cannot lie beside it: {ELSEWHERE}")
    try:
        check_can_write(place, folder=True)
    except CannotWrite as error:
        raise CannotWrite(f"{error}; {ELSEWHERE}") from error
    return place


def _found_or_new(pipe: Any, source: str, *, size: int, folder: str, trigger: str) -> tuple[Path, str]:
    """The cache's folder and form: the small one if that alone was made, else the full one."""
    full, small = (
        cache_folder(pipe, source, size=size, form=form, folder=folder, trigger=trigger)
        for form in ("full", "small")
    )
    if not _is_cache(small) or _is_cache(full):
        return full, "full"
    Progress("", total=0).say(f"using the cache in its small form, {small}")
    return small, "small"


def _is_cache(source: str | Path) -> bool:
    return is_url(source) or (Path(source) / "cache.json").is_file()


def _places(data: Path, part: str, chosen: str | Path) -> Iterator[Path]:
    """Where caches of this data may lie, the usual place first."""
    if chosen:
        # Of data sets with the same name, such as "images", each has its own.
        yield Path(chosen) / f"{data.name}-{hashlib.sha256(str(data).encode()).hexdigest()[:8]}" / part
        return
    yield _from_here(Path(f"{data}.cache")) / part
    yield from (data / older for older in ([f"{part}.cache"] if part else ["cache", "manifest.cache"]))


def _one_name(source: Path) -> tuple[Path, str]:
    """The folder of the data, without links and from the root, and which of its lists is meant: "" for the folder
    itself and for its own manifest."""
    if source.is_dir():
        return source.resolve(), ""
    folder, listing = source.parent.resolve(), source.resolve()
    # Files are relative to the folder that a list is named in, so a link from elsewhere is a list of its own.
    name = listing.name if listing.parent == folder else source.name
    return folder, "" if name == MANIFEST else name.removesuffix(".jsonl")


def _from_here(path: Path) -> Path:
    """The path as a reader likes it: relative where it lies below the working folder."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def public_name(data: str) -> str:
    """What an adapter says of the data that it was trained on: the same however they were named, so that the same run
    gives the same file, and nothing of the folders of the machine that made it."""
    mix = split_mix(data)
    names = [_own_name(source) for source, _ in mix]
    shares = [share for _, share in mix]
    return names[0] if shares == [1.0] else ",".join(f"{n}:{s:g}" for n, s in zip(names, shares, strict=True))


def _own_name(source: str) -> str:
    if is_url(source) or not Path(source).exists():
        return source
    folder, part = _one_name(Path(source))
    return f"{folder.name}/{part}" if part else folder.name


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

"""What is wrong with a data set, all of it at once and before anything slow: names, captions, headers, sizes.

No pixels are read, so that 30,000 images take seconds, and a user need not wait for a model to hear of the next fault.
What only the pixels show, damage further in and images that are there twice, is found when they are read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from urae.data.cache_files import is_url
from urae.data.manifest import MANIFEST, check_name, is_hidden, listed, read_manifest
from urae.data.pixels import trains_at
from urae.data.scenes import is_scenes
from urae.data.sidecar import Sidecar, read_sidecar
from urae.errors import BadFile
from urae.io import FOREIGN_SUFFIXES, PICTURE_SUFFIXES, is_picture_name, picture_size
from urae.resolution import Size

__all__ = ["check_data", "check_source"]

T = TypeVar("T")


def check_data(sources: Sequence[str], *, size: int, captioned: bool = True) -> None:
    """Raise for everything that is wrong with the sources of a data set, each with the names of its files: a
    `ValueError`, or, where all of it is files that cannot be read, a `BadFile`."""
    found = [
        _Faults.of(source, size=size, captioned=captioned)
        for source in sources
        if not _is_made_already(source)
    ]
    parts = [part for one in found for part in one.parts()]
    if not parts:
        return
    kinds = {kind for kind, _ in parts}
    said = "; ".join(text for _, text in parts)
    raise (BadFile if kinds == {BadFile} else ValueError)(said)


def check_source(source: str | Path, *, size: int, captioned: bool = True) -> None:
    """The same of one source."""
    check_data([str(source)], size=size, captioned=captioned)


def _is_made_already(source: str) -> bool:
    return is_scenes(source) or is_url(source) or (Path(source) / "cache.json").is_file()


@dataclass(kw_only=True)
class _Faults:
    """Of one source, by kind."""

    source: Path
    size: int
    captioned: bool
    """Whether each image must have a caption."""
    num: int = 0
    """Images in all."""
    foreign: list[str] = field(default_factory=list)
    """In formats that are not read."""
    broken: list[str] = field(default_factory=list)
    """Sentences, each with the name of its file."""
    bare: list[str] = field(default_factory=list)
    """Without a caption."""
    small: list[str] = field(default_factory=list)
    """Too small, with their sizes."""

    @classmethod
    def of(cls, source: str, *, size: int, captioned: bool) -> _Faults:
        path = Path(source)
        made = cls(source=path, size=size, captioned=captioned)
        if path.is_dir() and not (path / MANIFEST).is_file():
            made._look_through(path)
        elif (listing := path / MANIFEST if path.is_dir() else path).suffix == ".jsonl" and listing.is_file():
            made.source = listing
            for record in read_manifest(listing):
                made._look_at(record.file, captions=bool(record.captions), size=record.size)
        return made

    def parts(self) -> list[tuple[type[Exception], str]]:
        """A sentence for each kind of fault. A few small images are no fault: they are left out, and the others are
        trained on; beside faults they are named, since the user looks at the data anyway."""
        listings: list[tuple[type[Exception], list[str], str]] = [
            (
                ValueError,
                self.foreign,
                f"images in {self.source} are not {', '.join(PICTURE_SUFFIXES)} files: convert or remove",
            ),
            (
                ValueError,
                self.bare,
                f"images in {self.source} have no caption: run `urae data caption`, or put a .json with "
                '"prompt" or "generated_prompt", or a .txt, beside each of',
            ),
        ]
        found = [(kind, f"{len(names)} {said} {listed(names)}") for kind, names, said in listings if names]
        if self.broken:
            found.append((BadFile, "; ".join(self.broken)))
        if self.small and (found or len(self.small) == self.num):
            found.append(
                (
                    ValueError,
                    f"{len(self.small)} images are too small for {self.size} px, and images are never enlarged: "
                    f"remove them or train at a smaller size: {listed(self.small)}",
                )
            )
        return found

    def _look_through(self, folder: Path) -> None:
        for path in sorted(folder.rglob("*")):
            if is_hidden(path, folder) or not path.is_file():
                continue
            if path.suffix.lower() in FOREIGN_SUFFIXES:
                self.foreign.append(path.relative_to(folder).as_posix())
            elif is_picture_name(path):
                self._look_into(path, path.relative_to(folder).as_posix())

    def _look_into(self, path: Path, name: str) -> None:
        sidecar = self._tried(lambda: _beside(path))
        size = self._tried(lambda: picture_size(path))
        self._look_at(name, captions=sidecar is None or bool(sidecar.captions), size=size)

    def _tried(self, read: Callable[[], T]) -> T | None:
        try:
            return read()
        except BadFile as error:
            self.broken.append(str(error))
            return None

    def _look_at(self, name: str, *, captions: bool, size: Size | None) -> None:
        self.num += 1
        if self.captioned and not captions:
            self.bare.append(name)
        if size is not None and not trains_at(size, self.size):
            self.small.append(f"{name} ({size[0]}x{size[1]})")


def _beside(path: Path) -> Sidecar:
    check_name(path)
    return read_sidecar(path)

"""The pictures to be measured, wherever they come from, each with its name, its prompt and its hash.

A candidate is a folder, a list of files, or images in memory. A prompt comes from the text that `urae generate`
writes into each PNG, from a file of prompts by picture name, or from the caller. Nothing is left out: a picture
without a prompt is an error, and so is a prompt without a picture.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from PIL import Image

from urae.io import file_hash, picture_size, picture_texts, read_picture
from urae.metrics.matching import by_stem, captions_by_id, pictures_by_id, prompt_in, prompts_by_id
from urae.provenance import made_texts

__all__ = ["LazyPicture", "MeasuredPicture", "Pictures", "Prompts", "Source", "as_candidates", "collect"]

Source = Path | str | Image.Image
Pictures = Path | str | Sequence[Source]
"""A folder, or files and images in order."""
Prompts = Literal["png", "names"] | Path | str | Mapping[str, str] | Sequence[str]
"""Where prompts come from: `png`, each PNG's own text, or the manifest of a folder that has one;
`names`, none, so that each picture name counts as one prompt;
a file of lines {"id": picture name, "prompt": text}; a mapping of the same; or one prompt a picture, in order."""


@dataclass(frozen=True)
class LazyPicture:
    """One picture, read when it is first looked at and held until `release`."""

    source: Path | Image.Image

    @cached_property
    def image(self) -> Image.Image:
        """Upright, RGB. `Unreadable` for a file that is damaged or has no single right reading."""
        return (
            self.source.convert("RGB") if isinstance(self.source, Image.Image) else read_picture(self.source)
        )

    def release(self) -> None:
        """Forget the pixels of a file: a set of 4K pictures does not fit into memory."""
        self.__dict__.pop("image", None)

    @cached_property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels, upright, from the file's header alone."""
        return self.source.size if isinstance(self.source, Image.Image) else picture_size(self.source)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the file, or of the pixels of an image in memory."""
        if isinstance(self.source, Path):
            return file_hash(self.source)
        head = f"{self.source.mode} {self.source.size}".encode()
        return hashlib.sha256(head + self.source.tobytes()).hexdigest()

    @cached_property
    def texts(self) -> Mapping[str, str]:
        """Those that came with it, such as those that `urae.generation.save_png` writes."""
        if isinstance(self.source, Path):
            return made_texts(picture_texts(self.source))
        return made_texts({str(key): text for key, text in self.source.info.items() if isinstance(text, str)})


@dataclass(frozen=True, kw_only=True)
class MeasuredPicture:
    """A picture, and what some metrics compare it with."""

    picture: LazyPicture
    name: str
    """The file's name without suffix, or the place in the list: what references are matched by."""
    prompt: str
    """Empty where none is known."""
    partner: LazyPicture | None = None
    """The reference of this very picture."""

    @property
    def unit(self) -> str:
        """What statistics count: the prompt, or the name where there is none."""
        return self.prompt or self.name

    @property
    def image(self) -> Image.Image:
        """Upright, RGB."""
        return self.picture.image

    @property
    def reference(self) -> Image.Image:
        """The partner's image; only for metrics of pairs."""
        assert self.partner
        return self.partner.image


def as_candidates(images: Pictures | Mapping[str, Pictures]) -> dict[str, Pictures]:
    """Pictures by candidate; a single candidate is named after its folder, or "images"."""
    if isinstance(images, Mapping):
        return dict(images)
    name = Path(images).resolve().name if isinstance(images, Path | str) else "images"
    return {name: images}


def collect(name: str, pictures: Pictures, prompts: Prompts) -> list[MeasuredPicture]:
    """Every picture of a candidate, folders in the order of names. `ValueError` where prompts and pictures differ."""
    found: Mapping[str, Path | Image.Image]
    if isinstance(pictures, Path | str):
        found = pictures_by_id(name, pictures)
    else:
        sources = [Path(source) if isinstance(source, str) else source for source in pictures]
        paths = [source for source in sources if isinstance(source, Path)]
        in_order = {f"{place:06d}": source for place, source in enumerate(sources)}
        found = by_stem(name, paths) if len(paths) == len(sources) else in_order
    if not found:
        raise ValueError(f"{name} holds no pictures: expected at least one")
    read = {stem: LazyPicture(source) for stem, source in found.items()}
    if prompts == "png" and isinstance(pictures, Path | str) and (captions := captions_by_id(pictures)):
        prompts = captions
    texts = _texts(name, read, prompts)
    return [MeasuredPicture(picture=picture, name=stem, prompt=texts[stem]) for stem, picture in read.items()]


def _texts(name: str, found: Mapping[str, LazyPicture], prompts: Prompts) -> Mapping[str, str]:
    if prompts == "names":
        return dict.fromkeys(found, "")
    if prompts == "png":
        return {stem: _own_prompt(name, stem, picture) for stem, picture in found.items()}
    if isinstance(prompts, Path | str):
        prompts = prompts_by_id(prompts)
    if isinstance(prompts, Mapping):
        return _same_names(name, found, prompts)
    if len(prompts) != len(found):
        raise ValueError(
            f"{name} has {len(found)} pictures and there are {len(prompts)} prompts: expected one each"
        )
    return dict(zip(found, prompts, strict=True))


def _own_prompt(name: str, stem: str, picture: LazyPicture) -> str:
    prompt = prompt_in(picture.texts, name=f"the picture {stem} of {name}")
    if not prompt:
        raise ValueError(
            f"the picture {stem} of {name} does not hold its prompt: give a file of prompts by picture name, or "
            "'names' if no metric reads prompts"
        )
    return prompt


def _same_names(name: str, found: Mapping[str, object], prompts: Mapping[str, str]) -> Mapping[str, str]:
    if missing := sorted(prompts.keys() - found.keys()):
        raise ValueError(
            f"{name} has no picture for {len(missing)} of {len(prompts)} prompts, such as {missing[0]!r}: expected a "
            "file of this name"
        )
    if extra := sorted(found.keys() - prompts.keys()):
        raise ValueError(
            f"{name} has {len(extra)} pictures that no prompt names, such as {extra[0]!r}: add their prompts, or take "
            "them out of the folder"
        )
    return prompts

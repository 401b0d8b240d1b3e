"""From candidates' folders to a study: prompts matched, pictures encoded anew under random names.

With prompts by id a picture is found by its file name, `<id>.png`. Without, by what `urae generate` writes into
its PNGs: pictures of the same prompt and seed belong together, whatever their names. The folder appears at once
and whole; a build that was stopped leaves nothing behind that looks like a study.

What a file says about its maker must not reach a rater: each picture is read upright and in sRGB, and written anew by
the same encoder, without metadata: as it is, for the view at 100%, and reduced, for the view that fits the screen.
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from PIL import Image

from urae.io import file_hash, picture_size, read_picture, writing_folder
from urae.metrics.matching import MatchedItem, match_pictures, pictures_by_request
from urae.pages import thumbnail
from urae.statistics.intervals import check_prompts
from urae.study.ballots import BallotBox, invite
from urae.study.manifest import ASPECTS, Encoding, Study, StudyItem

__all__ = ["build_study", "match_provenance"]

MAX_CANDIDATES = 9
"""One key each."""


def build_study(
    candidates: Mapping[str, Path | str],
    out: Path | str,
    *,
    prompts: Mapping[str, str] | None = None,
    title: str = "Which picture is best?",
    num_raters: int = 0,
    encoding: Encoding = "png",
    preview: int = 1024,
    on_picture: Callable[[int], object] = lambda total: None,
) -> Study:
    """Make the folder `out` from `candidates` (name -> folder of pictures), two to nine of them.

    `prompts`: id -> text; None reads them from the PNGs. `preview`: longest side of the pictures that fit the
    screen, pixels. `on_picture` is called with the number of pictures in all, after each. `ValueError` where a
    picture is missing, prompts are fewer than six, or candidates differ in size; `BadFile` for an unreadable one.
    """
    out, folders = Path(out), {name: Path(folder) for name, folder in candidates.items()}
    _check(folders, out, num_raters, preview)
    items = match_provenance(folders) if prompts is None else match_pictures(folders, prompts)[0]
    check_prompts(len({item.prompt for item in items}))
    with writing_folder(out) as draft:
        study = Study(
            folder=draft,
            title=title,
            candidates=tuple(folders),
            aspects=ASPECTS,
            items=tuple(_blinded(item) for item in items),
            encoding=encoding,
            preview=preview,
        )
        _encode_all(study, items, on_picture)
        study.save()
        with BallotBox(study) as box:
            invite(box, num_raters)
    return replace(study, folder=out)


def match_provenance(folders: Mapping[str, Path]) -> list[MatchedItem]:
    """Items of the pictures that `urae generate` made, matched by prompt and seed.

    `ValueError` where candidates do not hold the same ones, `BadFile` for a picture without this metadata.
    """
    found = {name: pictures_by_request(name, folder) for name, folder in folders.items()}
    first, keys = next(iter(found)), list(next(iter(found.values())))
    for name, files in found.items():
        if different := sorted(files.keys() ^ set(keys)):
            prompt, seed = different[0]
            has, lacks = (name, first) if different[0] in files else (first, name)
            raise ValueError(
                f"{has} has a picture of {prompt!r} with seed {seed} and {lacks} has none: "
                "expected the same prompts and seeds of every candidate"
            )
    numbers = {prompt: place for place, prompt in enumerate(dict.fromkeys(prompt for prompt, _ in keys), 1)}
    return [
        MatchedItem(
            id=f"prompt-{numbers[prompt]:03d}-seed{seed}",
            prompt=prompt,
            pictures={name: files[prompt, seed] for name, files in found.items()},
        )
        for prompt, seed in keys
    ]


def _blinded(item: MatchedItem) -> StudyItem:
    names = [(secrets.token_hex(16), candidate) for candidate in item.pictures]
    # In an order that says nothing either.
    random.SystemRandom().shuffle(names)
    return StudyItem(
        id=item.id,
        prompt=item.prompt,
        size=_common_size(item),
        pictures=dict(names),
        sources={candidate: file_hash(path) for candidate, path in item.pictures.items()},
    )


def _common_size(item: MatchedItem) -> tuple[int, int]:
    sizes = {candidate: picture_size(path) for candidate, path in item.pictures.items()}
    if len(set(sizes.values())) > 1:
        shown = ", ".join(f"{candidate} {width}x{height}" for candidate, (width, height) in sizes.items())
        raise ValueError(
            f"the pictures of {item.id!r} differ in size ({shown}), which would tell them apart: "
            "bring them to one size first"
        )
    return next(iter(sizes.values()))


def _encode_all(study: Study, items: list[MatchedItem], on_picture: Callable[[int], object]) -> None:
    for part in ("pictures", "previews"):
        (study.folder / part).mkdir(parents=True)
    for blinded, item in zip(study.items, items, strict=True):
        for name, candidate in blinded.pictures.items():
            _encode(read_picture(item.pictures[candidate]), study, name)
            on_picture(len(items) * len(study.candidates))


def _encode(picture: Image.Image, study: Study, name: str) -> None:
    # A new image has no metadata to hand on.
    bare = Image.frombytes("RGB", picture.size, picture.tobytes())
    if study.encoding == "png":
        bare.save(study.pictures[name], "PNG")
    else:
        bare.save(study.pictures[name], "JPEG", quality=97, subsampling=0)
    thumbnail(bare, study.preview).save(study.previews[name], "JPEG", quality=92, subsampling=0)


def _check(folders: Mapping[str, Path], out: Path, num_raters: int, preview: int) -> None:
    if not 2 <= len(folders) <= MAX_CANDIDATES:
        raise ValueError(f"there are {len(folders)} candidates: expected two to {MAX_CANDIDATES}")
    if out.exists():
        raise ValueError(f"{out} exists already, and may hold votes: give another folder, or remove it")
    if num_raters < 0 or preview < 1:
        raise ValueError(
            f"raters are {num_raters} and previews {preview} px: expected 0 or more, and 1 or more"
        )

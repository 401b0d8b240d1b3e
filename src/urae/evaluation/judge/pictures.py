"""What the judge sees: candidates' pictures through one encoder, without metadata, whole or as native crops.

The whole picture is reduced to fit `max_side` and sent as JPEG (quality 95, full colour); GPT-4o, for one, then
looks at a 2048 px square at 768 px. So `detail` is judged on lossless crops of the native picture, at places that
are drawn from the prompt's id and thus the same for every candidate. Nothing is ever enlarged.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps

from urae.errors import BadFile

__all__ = ["DETAIL", "Item", "View", "match_pictures", "read_prompts"]

DETAIL = "detail"
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


@dataclass(frozen=True, kw_only=True)
class Item:
    """A prompt and each candidate's picture of it."""

    id: str
    prompt: str
    pictures: Mapping[str, Path]


@dataclass(frozen=True, kw_only=True)
class View:
    """How a picture is shown."""

    max_side: int = 2048
    """Pixels of the longer side of a whole picture."""
    crop: int = 768
    """Side of a native crop, pixels."""
    num_crops: int = 3

    def describe(self, aspect: str) -> str:
        """What an answer depends on, as text."""
        return json.dumps(asdict(self) | {"encoding": "png crops" if aspect == DETAIL else "jpeg 95 4:4:4"})

    def check(self, item: Item, aspects: tuple[str, ...]) -> None:
        """`ValueError` where the judge would see one candidate larger than another."""
        sizes = {name: _size(path) for name, path in item.pictures.items()}
        native = ", ".join(f"{name} {width}x{height}" for name, (width, height) in sizes.items())
        if set(aspects) - {DETAIL} and len({self.fit(size) for size in sizes.values()}) > 1:
            raise ValueError(
                f"the pictures of {item.id!r} would be shown at different sizes ({native}): "
                "give a max side that all of them reach, and pictures of one shape"
            )
        if DETAIL not in aspects:
            return
        if len(set(sizes.values())) > 1:
            raise ValueError(
                f"detail is judged on native crops, and the pictures of {item.id!r} differ in size ({native}): "
                "leave detail out, or compare pictures of one size"
            )
        if min(min(size) for size in sizes.values()) < self.crop:
            raise ValueError(
                f"a crop of {self.crop} px does not fit into the pictures of {item.id!r} ({native}): "
                "give a smaller crop, or leave detail out"
            )

    def fit(self, size: tuple[int, int]) -> tuple[int, int]:
        """Size at which a picture of `size` is shown whole."""
        scale = min(1.0, self.max_side / max(size))
        return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))

    def show(self, path: Path, aspect: str, item_id: str) -> tuple[str, ...]:
        """Data URIs: the whole picture, or its crops for `detail`."""
        return _shown(self, path, aspect == DETAIL, item_id)

    def crops(self, size: tuple[int, int], item_id: str) -> list[tuple[int, int, int, int]]:
        """Boxes of the native crops, a function of the size and the prompt's id."""
        seed = int.from_bytes(hashlib.sha256(item_id.encode()).digest()[:8], "big")
        corners = np.random.default_rng(seed).random((self.num_crops, 2))
        lefts = [(round(x * (size[0] - self.crop)), round(y * (size[1] - self.crop))) for x, y in corners]
        return [(x, y, x + self.crop, y + self.crop) for x, y in lefts]


def read_prompts(path: Path | str) -> dict[str, str]:
    """Prompts by id, from lines such as {"id": "lighthouse", "prompt": "a lighthouse at dusk"}."""
    prompts: dict[str, str] = {}
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        name, prompt = _prompt(line, f"line {number} of {path}")
        if name in prompts:
            raise BadFile(f"line {number} of {path} has the id {name!r} again: expected each id once")
        prompts[name] = prompt
    if not prompts:
        raise BadFile(f"{path} holds no prompts")
    return prompts


def match_pictures(
    candidates: Mapping[str, Path], prompts: Mapping[str, str]
) -> tuple[list[Item], dict[str, list[str]]]:
    """Each prompt with the picture `<id>.png` (or .jpg, .jpeg, .webp) of each candidate's folder.

    Also returns, by candidate, the pictures that belong to no prompt. `ValueError` where one is missing or there
    are two.
    """
    found = {name: _pictures(Path(folder), name) for name, folder in candidates.items()}
    for name, files in found.items():
        if missing := [prompt for prompt in prompts if prompt not in files]:
            raise ValueError(
                f"{name} has no picture for {len(missing)} of {len(prompts)} prompts, such as {missing[0]!r}: "
                f"expected a file like {candidates[name]}/{missing[0]}.png"
            )
    unused = {
        name: sorted(str(files[stem]) for stem in files.keys() - prompts.keys())
        for name, files in found.items()
    }
    items = [
        Item(id=name, prompt=prompt, pictures={c: files[name] for c, files in found.items()})
        for name, prompt in prompts.items()
    ]
    return items, unused


def _prompt(line: str, place: str) -> tuple[str, str]:
    try:
        record = json.loads(line)
        name, prompt = record["id"], record["prompt"]
    except (ValueError, KeyError, TypeError) as error:
        raise BadFile(f'{place} is no prompt: expected {{"id": ..., "prompt": ...}}') from error
    if not (isinstance(name, str) and isinstance(prompt, str) and name and prompt):
        raise BadFile(f"{place} is no prompt: expected id and prompt to be texts")
    return name, prompt


def _pictures(folder: Path, name: str) -> dict[str, Path]:
    if not folder.is_dir():
        raise ValueError(f"candidate {name} is {folder}: expected a folder of pictures")
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in SUFFIXES:
            continue
        if path.stem in files:
            raise ValueError(
                f"{name} has two pictures for {path.stem!r}: {files[path.stem].name} and {path.name}"
            )
        files[path.stem] = path
    return files


def _size(path: Path) -> tuple[int, int]:
    """Upright size from the file's header alone: decoding every picture of a large comparison takes minutes."""
    try:
        with Image.open(path) as opened:
            turned = opened.getexif().get(ExifTags.Base.Orientation, 1) >= 5
            return (opened.height, opened.width) if turned else opened.size
    except OSError as error:
        raise BadFile(f"{path} cannot be read as a picture: {error}") from error


def _opened(path: Path) -> Image.Image:
    try:
        with Image.open(path) as opened:
            upright = ImageOps.exif_transpose(opened)
            upright.load()
    except OSError as error:
        raise BadFile(f"{path} cannot be read as a picture: {error}") from error
    return upright


@functools.lru_cache(maxsize=16)
def _shown(view: View, path: Path, native: bool, item_id: str) -> tuple[str, ...]:
    picture = _opened(path).convert("RGB")
    if native:
        return tuple(_data_uri(picture.crop(box), "PNG") for box in view.crops(picture.size, item_id))
    fitted = view.fit(picture.size)
    whole = picture if fitted == picture.size else picture.resize(fitted, Image.Resampling.LANCZOS)
    return (_data_uri(whole, "JPEG", quality=95, subsampling=0),)


def _data_uri(picture: Image.Image, kind: str, **options: int) -> str:
    stream = io.BytesIO()
    # A new image has no metadata to hand on: EXIF and text chunks would tell the judge who made it.
    Image.frombytes("RGB", picture.size, picture.tobytes()).save(stream, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(stream.getvalue()).decode()}"

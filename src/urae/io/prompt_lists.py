"""Lists of prompts as benchmarks publish them, read as they are: HPDv2's and COCO's.

HPDv2 has a JSON list of texts for each of its four styles, and names the picture of each by its place in the list.
COCO has one file of captions, five of each image. Both give ids here, after which pictures are named.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from urae.errors import BadFile
from urae.io.texts import field_of, read_json, typed

__all__ = ["is_prompt_list", "read_prompt_list"]


def is_prompt_list(path: Path | str) -> bool:
    """Whether `read_prompt_list` is for it: a .json file, or a folder."""
    return Path(path).suffix == ".json" or Path(path).is_dir()


def read_prompt_list(path: Path | str) -> dict[str, str]:
    """Prompts by id. `BadFile` for what is in none of these forms.

    A list of texts, HPDv2's `anime.json`, say: `anime-00000` and so on, by file and place. A folder of such lists: all
    of them, by name. COCO's `captions_val2014.json`: `391895-1` is the first caption of the image 391895.
    """
    path = Path(path)
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    prompts = {key: text for file in files for key, text in _prompts(file)}
    if not prompts:
        raise BadFile(f"{path} holds no prompts: expected .json lists of HPDv2 or captions of COCO")
    return prompts


def _prompts(file: Path) -> Iterator[tuple[str, str]]:
    content = read_json(file)
    if isinstance(content, list):
        named: Iterator[tuple[str, Any]] = (
            (f"{file.stem}-{number:05d}", text) for number, text in enumerate(content)
        )
    elif isinstance(content, dict) and "annotations" in content:
        named = _captions(field_of(content, "annotations", list, name=file), file)
    else:
        raise BadFile(f"{file} holds no prompts: expected a list of texts, as HPDv2 has, or COCO's captions")
    for key, value in named:
        text = typed(value, str, name=f"prompt {key} of {file}").strip()
        if not text:
            raise BadFile(f"prompt {key} of {file} is empty")
        yield key, text


def _captions(annotations: list[Any], file: Path) -> Iterator[tuple[str, Any]]:
    seen: Counter[int] = Counter()
    for number, one in enumerate(annotations):
        name = f"annotation {number} of {file}"
        image = field_of(typed(one, dict, name=name), "image_id", int, name=name)
        seen[image] += 1
        yield f"{image}-{seen[image]}", field_of(one, "caption", str, name=name)

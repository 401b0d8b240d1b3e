"""Pictures and prompts matched by name: a candidate's folder holds `<id>.png` for each prompt's id.

A collection, or any other folder with a manifest, is such a folder: its manifest says where the pictures lie.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from urae.data.manifest import MANIFEST, read_manifest
from urae.errors import BadFile
from urae.io import WRITTEN_FORMATS, is_picture_name, parse_json_object, picture_texts, read_prompt_list
from urae.provenance import made_texts

__all__ = [
    "MatchedItem",
    "by_stem",
    "captions_by_id",
    "match_pictures",
    "picture_files",
    "pictures_by_id",
    "pictures_by_request",
    "prompt_in",
    "prompts_by_id",
]


@dataclass(frozen=True, kw_only=True)
class MatchedItem:
    """A prompt and each candidate's picture of it."""

    id: str
    prompt: str
    pictures: Mapping[str, Path]


def prompts_by_id(path: Path | str) -> dict[str, str]:
    """The prompts of a list that has ids (`urae.io.read_prompt_list`): lines such as {"id": "lighthouse", "prompt": "a
    lighthouse at dusk"}, or a list as HPDv2 or COCO publish it. `BadFile` where it has none."""
    prompts = read_prompt_list(path)
    if not isinstance(prompts, dict):
        raise BadFile(
            f'{path} has no ids: expected lines of {{"id": "lighthouse", "prompt": "a lighthouse at dusk"}}'
        )
    return prompts


def prompt_in(texts: Mapping[str, str], *, name: object) -> str:
    """The prompt among the texts of a PNG, as `urae generate` writes it; empty where there is none.

    `ValueError` for a graph, which ComfyUI keeps under the same key; `name` stands for the picture there.
    """
    prompt = texts.get("prompt", "")
    if prompt.lstrip().startswith("{") and _is_object(prompt):
        raise ValueError(
            f"{name} holds a graph of ComfyUI instead of its prompt: give the prompts in a file, by picture name"
        )
    return prompt


def match_pictures(
    candidates: Mapping[str, Path], prompts: Mapping[str, str]
) -> tuple[list[MatchedItem], dict[str, list[str]]]:
    """Each prompt with the picture `<id>.png` (or another ending of a picture) of each candidate's folder.

    Also returns, by candidate, the pictures that belong to no prompt. `ValueError` where one is missing or there
    are two.
    """
    found = {name: pictures_by_id(name, folder) for name, folder in candidates.items()}
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
        MatchedItem(id=name, prompt=prompt, pictures={c: files[name] for c, files in found.items()})
        for name, prompt in prompts.items()
    ]
    return items, unused


def pictures_by_id(name: str, folder: Path | str) -> dict[str, Path]:
    """The pictures in the folder of the candidate `name` by id, which is the file's name without its ending.

    `ValueError` where there is no folder, or two pictures have one id.
    """
    return by_stem(name, picture_files(name, folder))


def pictures_by_request(name: str, folder: Path) -> dict[tuple[str, str], Path]:
    """The pictures that `urae generate` wrote into the folder of the candidate `name`, by prompt and seed.

    `ValueError` where there is none or two are of one prompt and seed, `BadFile` for a picture that tells neither.
    """
    files: dict[tuple[str, str], Path] = {}
    for path in picture_files(name, folder):
        if path.suffix.lower() not in WRITTEN_FORMATS.values():
            continue
        key = _request_of(path)
        if key in files:
            raise ValueError(
                f"{name} has two pictures of {key[0]!r} with seed {key[1]}: {files[key].name} and {path.name}"
            )
        files[key] = path
    if not files:
        raise ValueError(
            f"candidate {name} has no {', '.join(WRITTEN_FORMATS.values())} in {folder}: "
            "give the prompts of other files by id"
        )
    return files


def _request_of(path: Path) -> tuple[str, str]:
    texts = made_texts(picture_texts(path))
    prompt, seed = prompt_in(texts, name=path), texts.get("seed", "")
    if not (prompt and seed):
        lacks = "seed" if prompt else "prompt"
        raise BadFile(f"{path} holds no {lacks} of urae's: give the prompts by id")
    return prompt, seed


def picture_files(name: str, folder: Path | str) -> list[Path]:
    """The pictures in the folder of the candidate `name`, by their names: those that its manifest lists, where it has
    one. `ValueError` where there is no folder."""
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{name} is {folder}: expected a folder of pictures")
    if (folder / MANIFEST).is_file():
        return sorted(folder / record.file for record in read_manifest(folder / MANIFEST))
    return [path for path in sorted(folder.iterdir()) if is_picture_name(path)]


def captions_by_id(folder: Path | str) -> dict[str, str]:
    """The captions that the pictures of a folder with a manifest came with, a collection's prompts, by id; none of a
    folder without."""
    path = Path(folder) / MANIFEST
    records = read_manifest(path) if path.is_file() else []
    return {Path(r.file).stem: r.captions["original"] for r in records if "original" in r.captions}


def by_stem(name: str, files: Iterable[Path]) -> dict[str, Path]:
    """Files by their names without suffix; `ValueError` where two of the candidate `name` are called the same."""
    found: dict[str, Path] = {}
    for path in files:
        if path.stem in found:
            raise ValueError(
                f"{name} has two pictures named {path.stem}, {found[path.stem].name} and {path.name}: expected each "
                "name once"
            )
        found[path.stem] = path
    return found


def _is_object(text: str) -> bool:
    try:
        return bool(parse_json_object(text, name="a prompt"))
    except BadFile:
        return False

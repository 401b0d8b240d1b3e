"""Provenance into a picture's file and out of it again.

A file holds two texts: "urae", JSON with everything, and "parameters", the line that AUTOMATIC1111 writes and other
tools read. Earlier pictures of ours have a text for each entry, under its own name; "prompt" is one of them, which
ComfyUI takes for its graph.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from urae.errors import BadFile
from urae.io import parse_json_object, picture_texts, write_picture, write_png
from urae.provenance.foreign import Foreign, from_graph, from_parameters
from urae.provenance.record import KEYS, Provenance

if TYPE_CHECKING:
    from PIL import Image

__all__ = [
    "claimed_provenance",
    "facts_of",
    "made_texts",
    "read_maker",
    "read_png_metadata",
    "save_picture",
    "save_png",
]


def save_png(image: Image.Image, path: str | Path) -> Path:
    """Write `image` with what `image.info` says about it; the file is whole or not there."""
    return write_png(image, path, texts=_texts(image))


def save_picture(image: Image.Image, path: str | Path) -> Path:
    """The same as PNG, JPEG or WebP, by the ending of the name; the last two hold it as EXIF, and change pixels."""
    return write_picture(image, path, texts=_texts(image))


def read_png_metadata(path: str | Path) -> Provenance:
    """What `save_png` or `save_picture` wrote about an image that `generate` made. Raises `BadFile` if the file tells
    no such thing."""
    texts = picture_texts(path)
    try:
        return _ours(texts, path)
    except KeyError as error:
        raise BadFile(f"{path} is not a picture that urae has made: it holds no {error.args[0]!r}") from error
    except (ValueError, BadFile) as error:
        raise BadFile(f"{path} is not a picture that urae has made: {error}") from error


def claimed_provenance(path: str | Path) -> Provenance | None:
    """What the beginning of an image file says about it, its pixels unread; None for a file that is not ours."""
    try:
        return read_png_metadata(path)
    except BadFile:
        return None


def read_maker(path: str | Path) -> Provenance | Foreign:
    """How a picture was made, by us or by a tool whose words are understood. `BadFile` where it does not say, or in
    a way that has no single reading."""
    texts = picture_texts(path)
    if "urae" in texts or KEYS[0] in texts and KEYS[1] in texts:
        return read_png_metadata(path)
    if "parameters" in texts:
        return from_parameters(texts["parameters"], name=path)
    if "prompt" in texts:
        return from_graph(texts["prompt"], name=path)
    raise BadFile(
        f"{path} does not say how it was made: it holds no settings of urae, AUTOMATIC1111 or ComfyUI"
    )


def made_texts(texts: Mapping[str, str]) -> Mapping[str, str]:
    """Of the texts in a picture's file, those that `image.info` had before it was saved, if it is ours; else as they
    are."""
    if "urae" not in texts:
        return texts
    return _ours(texts, "the picture").to_info()


def facts_of(made: Provenance | Foreign) -> dict[str, str]:
    """All that is told, by name, in words."""
    if isinstance(made, Foreign):
        return {"made by": made.tool, **{key: _said(value) for key, value in made.taken.items()}, **made.left}
    said = {"made by": f"urae {made.versions.get('urae', '')}".strip(), "policy": str(made.policy or "none")}
    facts = made.to_info() | said
    if made.adapters:
        facts["adapters"] = ", ".join(
            f"{one.file or one.hash[:12]} at {one.strength:g}" for one in made.adapters
        )
    return {"made by": facts.pop("made by"), **facts}


def _said(value: object) -> str:
    return f"{value[0]}x{value[1]}" if isinstance(value, tuple) else str(value)


def _texts(image: Image.Image) -> dict[str, str]:
    # Pillow keeps other things there too, such as an ICC profile in bytes.
    texts = {str(key): text for key, text in image.info.items() if isinstance(text, str)}
    if not texts.keys() >= set(KEYS):
        return texts
    made = Provenance.from_info(texts)
    others = {key: text for key, text in texts.items() if key not in Provenance.__dataclass_fields__}
    return others | {
        "urae": json.dumps(made.to_dict(), ensure_ascii=False),
        "parameters": parameters_of(made),
    }


def parameters_of(made: Provenance) -> str:
    """The text in AUTOMATIC1111's form: the prompt, the negative prompt, a line of settings."""
    width, height = made.size
    settings = {
        "Steps": made.steps,
        "Sampler": "Euler",
        "CFG scale": "" if made.guidance is None else f"{made.guidance:g}",
        "Seed": made.seed,
        "Size": f"{width}x{height}",
        "Model": made.model,
        "Adapters": ", ".join(f"{one.file or one.hash[:12]}:{one.strength:g}" for one in made.adapters)
        or made.adapter_file,
        "Method": made.method,
        "Version": f"urae {made.versions.get('urae', '')}".strip(),
    }
    line = ", ".join(f"{key}: {_quoted(str(value))}" for key, value in settings.items() if value != "")
    negative = [f"Negative prompt: {made.negative}"] if made.negative else []
    return "\n".join([made.prompt, *negative, line])


def _quoted(value: str) -> str:
    return json.dumps(value, ensure_ascii=False) if set(value) & set(',:"\n') else value


def _ours(texts: Mapping[str, str], path: object) -> Provenance:
    if "urae" not in texts:
        return Provenance.from_info(texts)
    name = f"the text urae of {path}"
    return Provenance.from_dict(parse_json_object(texts["urae"], name=name), name=name)

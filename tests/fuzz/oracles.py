"""What a damaged file says, by another reader than ours: a door that takes a file must take what stands in it.

An answer is right if it holds no less and nothing else. Nothing here is lenient: what the other reader refuses, a door
that reads it has accepted in silence. Pictures other than PNG carry no checksum, so noise in their pixels is a valid
picture; of these it is asked that Pillow by itself decodes them, at the same size.
"""

from __future__ import annotations

import csv
import io
import json
import warnings
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image
from safetensors.torch import load

from urae.training import to_dict

__all__ = ["ORACLES", "answers_as_written"]


def _text(content: bytes) -> str:
    return content.decode("utf-8").removeprefix("\ufeff")


def _lines(content: bytes) -> list[str]:
    return [line.removesuffix("\r") for line in _text(content).split("\n")]


def _objects(content: bytes) -> list[dict[str, Any]]:
    return [_object(line) for line in _lines(content) if line.strip()]


def _object(line: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(line, object_pairs_hook=_once)
    assert isinstance(found, dict)
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    assert len(dict(pairs)) == len(pairs), "a key twice"
    return dict(pairs)


def recipe(content: bytes, read: Any, whole: bytes) -> bool:
    said, taken = yaml.safe_load(_text(content)), json.loads(json.dumps(to_dict(read)))
    return _within(said, taken)


def manifest(content: bytes, read: Any, whole: bytes) -> bool:
    records, _ = read
    said = [(one["id"], one["file"], tuple(one["size"]), one["captions"]) for one in _objects(content)]
    return said == [(one.id, one.file, tuple(one.size), dict(one.captions)) for one in records]


def adapter(content: bytes, read: Any, whole: bytes) -> bool:
    """The product of its two factors; kohya's times alpha over the rank."""
    tensors = load(content)
    (down,) = (one for name, one in tensors.items() if "lora_A" in name or "lora_down" in name)
    (up,) = (one for name, one in tensors.items() if "lora_B" in name or "lora_up" in name)
    scale = [float(one) / len(down) for name, one in tensors.items() if name.endswith("alpha")]
    assert len(tensors) == 2 + len(scale)
    ((A, B),) = read.factors.values()
    said = (up.double() @ down.double()) * (scale[0] if scale else 1.0)
    return bool(said.isfinite().all()) and torch.allclose(B.double() @ A.double(), said, rtol=1e-5)


def png(content: bytes, read: Any, whole: bytes) -> bool:
    """Checksums hold for all pixels, so they are those of the whole file."""
    return np.array_equal(np.asarray(read), np.asarray(Image.open(io.BytesIO(whole)).convert("RGB")))


def picture(content: bytes, read: Any, whole: bytes) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of damaged tags, which the pixels do not need
        opened = Image.open(io.BytesIO(content))
        opened.load()  # Pillow refuses what is cut off
    return opened.size == read.size or opened.size == read.size[::-1]


def prompts_by_id(content: bytes, read: Any, whole: bytes) -> bool:
    said = [(str(one["id"]), one["prompt"].strip()) for one in _objects(content)]
    return said == list(read.items())


def prompts(content: bytes, read: Any, whole: bytes) -> bool:
    """Comments and empty lines are none."""
    lines = [line.strip() for line in _lines(content)]
    return [line for line in lines if line and not line.startswith("#")] == read


def prompts_of_lines(content: bytes, read: Any, whole: bytes) -> bool:
    return [one["prompt"].strip() for one in _objects(content)] == read


def questions(content: bytes, read: Any, whole: bytes) -> bool:
    rows = list(csv.DictReader(io.StringIO(_text(content), newline=""), strict=True))
    said = [(row["item_id"], row["text"], row["tuple"], row["question_natural_language"]) for row in rows]
    taken = [(item.id, item.prompt, one.proposition, one.text) for item in read for one in item.questions]
    return sorted(said) == sorted(taken)


def journal(content: bytes, read: Any, whole: bytes) -> bool:
    """But for a last line that a killed process left torn, which has no end."""
    *lines, last = content.split(b"\n")
    said = [_object(_text(line)) for line in lines]
    with suppress(ValueError, AssertionError):
        said += [_object(_text(last))] if last else []
    return said == read


def instructions(content: bytes, read: Any, whole: bytes) -> bool:
    said = yaml.safe_load(_text(content))
    taken = {"answers": read.answers, **{kind: dict(texts) for kind, texts in read.texts.items() if texts}}
    return {key: value for key, value in said.items() if value != {}} == taken


def table(content: bytes, read: Any, whole: bytes) -> bool:
    said = yaml.safe_load(_text(content))
    small = said["miniature"]
    kept = [row["name"] for row in said["rows"] if (small.get("rows") or {}).get(row["name"], {}) is not None]
    columns = [column["name"] for column in small.get("columns", said["columns"])]
    return (
        kept == [row.name for row in read.rows]
        and columns == [column.name for column in read.columns]
        and small.get("size", said.get("size")) == read.size
        and small.get("steps", said.get("steps", 0)) == read.steps
        and said["title"] == read.title
    )


def _within(said: Any, taken: Any) -> bool:
    """Whether all that is said was taken, in objects at any depth."""
    if isinstance(said, Mapping) and isinstance(taken, Mapping):
        return all(key in taken and _within(value, taken[key]) for key, value in said.items())
    if isinstance(said, int | float) and isinstance(taken, int | float):
        return float(said) == float(taken)
    return said == taken


def answers_as_written(door: str, content: bytes, read: Any, whole: bytes) -> bool:
    """Whether the door has read what stands in the file."""
    try:
        return ORACLES[door](content, read, whole)
    except Exception:
        return False


ORACLES = {
    "recipe": recipe,
    "manifest": manifest,
    "adapter": adapter,
    "adapter of kohya": adapter,
    "picture": png,
    "picture (JPEG)": picture,
    "picture (TIFF)": picture,
    "picture (WebP)": picture,
    "prompts with ids": prompts_by_id,
    "prompts": prompts,
    "prompts (JSON lines)": prompts_of_lines,
    "questions of DPG-Bench": questions,
    "journal": journal,
    "judge's instructions": instructions,
    "plan of a table": table,
    "list of prompts (HPDv2)": lambda content, read, whole: (
        [text.strip() for text in json.loads(_text(content))] == list(read.values())
    ),
    "captions of COCO": lambda content, read, whole: (
        [one["caption"].strip() for one in json.loads(_text(content), object_pairs_hook=_once)["annotations"]]
        == list(read.values())
    ),
}
"""By the name of the door."""

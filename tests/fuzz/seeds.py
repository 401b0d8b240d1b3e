"""Every door to the outside with a valid file of its own: what a fuzzer changes, and what reads it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from safetensors.torch import save_file

from urae import Adapter
from urae.data import read_records, write_manifest
from urae.data.record import Record
from urae.dpg import read_questions
from urae.io import read_journal, read_picture, read_prompt_list
from urae.judge.instructions import OWN, read_instructions
from urae.metrics.matching import prompts_by_id
from urae.recipes import RECIPES
from urae.reproduce.plan import FOLDER, read_plan
from urae.training.settings import load_recipe, save_recipe


@dataclass(frozen=True)
class Door:
    """A reader, and the file that it reads."""

    name: str
    file: str
    """Its name in a folder."""
    make: Callable[[Path], Any]
    """Writes a valid file to this path."""
    read: Callable[[Path], Any]


def _records(path: Path) -> None:
    made = [
        Record(
            id=digit * 64, file=f"{digit}.png", size=(64, 48), captions={"detailed": "a cat"}, source="folder"
        )
        for digit in "0ab"
    ]
    write_manifest(made, path)


def _lora(path: Path) -> None:
    name = "transformer.transformer_blocks.0.attn.to_q"
    save_file({f"{name}.lora_A.weight": torch.ones(2, 8), f"{name}.lora_B.weight": torch.ones(8, 2)}, path)


def _kohya(path: Path) -> None:
    name = "lora_unet_single_blocks_0_linear2"
    tensors = {
        "alpha": torch.tensor(1.0),
        "lora_down.weight": torch.ones(2, 8),
        "lora_up.weight": torch.ones(8, 2),
    }
    save_file({f"{name}.{key}": tensor for key, tensor in tensors.items()}, path)


def _picture(path: Path) -> None:
    texts = PngInfo()
    texts.add_text("urae", json.dumps({"prompt": "a cat", "seed": 1}))
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
    given = {"pnginfo": texts} if path.suffix == ".png" else {}
    Image.fromarray(pixels).save(path, **given)


def _prompts(path: Path) -> None:
    path.write_text('{"id": "cat", "prompt": "a cat"}\n{"id": "owl", "prompt": "an owl"}\n')


def _texts(path: Path) -> None:
    path.write_text('{"prompt": "a cat"}\n{"prompt": "an owl"}\n')


def _captions(path: Path) -> None:
    captions = [
        {"image_id": 391895, "id": number, "caption": text} for number, text in enumerate(["a cat", "a dog"])
    ]
    path.write_text(json.dumps({"info": {"year": 2014}, "images": [], "annotations": captions}, indent=1))


def _questions(path: Path) -> None:
    header = "item_id,text,proposition_id,dependency,tuple,question_natural_language\n"
    path.write_text(
        header
        + "cat,a cat,1,0,entity - whole (cat),Is there a cat?\ncat,a cat,2,1,attribute (red),Is it red?\n"
    )


def _journal(path: Path) -> None:
    path.write_text('{"item": "a", "stamp": 1}\n{"item": "b", "stamp": 2}\n')


DOORS = (
    Door("recipe", "recipe.yaml", lambda path: save_recipe(RECIPES["flux_4k"](), path), load_recipe),
    Door("manifest", "manifest.jsonl", _records, read_records),
    Door("adapter", "lora.safetensors", _lora, Adapter.load),
    Door("adapter of kohya", "kohya.safetensors", _kohya, Adapter.load),
    Door("picture", "picture.png", _picture, read_picture),
    Door("picture (JPEG)", "picture.jpg", _picture, read_picture),
    Door("picture (TIFF)", "picture.tif", _picture, read_picture),
    Door("picture (WebP)", "picture.webp", _picture, read_picture),
    Door("prompts with ids", "prompts.jsonl", _prompts, prompts_by_id),
    Door("prompts", "prompts.txt", lambda path: path.write_text("a cat\nan owl\n"), read_prompt_list),
    Door("prompts (JSON lines)", "list.jsonl", _texts, read_prompt_list),
    Door(
        "list of prompts (HPDv2)",
        "anime.json",
        lambda path: path.write_text('["a cat", "an owl"]'),
        prompts_by_id,
    ),
    Door("captions of COCO", "captions.json", _captions, prompts_by_id),
    Door("questions of DPG-Bench", "questions.csv", _questions, read_questions),
    Door("journal", "journal.jsonl", _journal, read_journal),
    Door(
        "judge's instructions",
        "judge.yaml",
        lambda path: path.write_bytes(Path(str(OWN)).read_bytes()),
        read_instructions,
    ),
    Door(
        "plan of a table",
        "plan.yaml",
        lambda path: path.write_bytes((FOLDER / "table2.yaml").read_bytes()),
        lambda path: read_plan(str(path), miniature=True),
    ),
)

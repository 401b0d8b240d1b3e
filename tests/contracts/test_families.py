"""A folder a family: nothing outside `families/` knows a family's classes, parts, inputs, layers or sizes.

Read are names and strings of the code. Comments and docstrings may say what a number is at FLUX.1.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from source import FILES, SRC, place, tree

KNOWING = ("families/", "recipes.py", "mini/", "collecting/teachers/")
"""Where a family may be named: its folder, the paper's settings, the miniature FLUX, and models that are hired."""

FAMILY = re.compile(r"_*(flux|chroma|krea|z_?image|qwen)", re.IGNORECASE)
CLASS = re.compile(r"\b(Flux|Chroma|Krea|QwenImage|ZImage|Lumina|Sana|Wan)\d?[A-Z]\w*")
WORD = re.compile(
    r"\b(pos_embed|txt_ids|img_ids|guidance_embeds|pooled_prompt_embeds|joint_attention_kwargs"
    r"|text_encoder(_\d)?|tokenizer_\d|vae_scale_factor|shift_factor|block_out_channels|axes_dims?_rope"
    r"|(single_)?transformer_blocks|double_blocks|single_blocks|to_(q|k|v|out|qkv)|add_[qkv]_proj"
    r"|PIXELS_PER_TOKEN)(?![\w])"
)
TOKEN_SIDE = 16
"""Pixels that a token has along a side in some families: to multiply or divide by it is to know which."""

ALLOWED = {
    **{
        ("collecting/__init__.py", name): "a teacher, which the package exports"
        for name in ("FluxProUltra", "Flux2Teacher", "Flux3Image")
    },
    **{
        (
            "adapters/convert.py",
            name,
        ): "files of attention processors, a layout with diffusers' own names in it"
        for name in ("to_q", "to_k", "to_v", "to_out")
    },
    **{
        ("adapters/loaders.py", name): "the layers by which other tools know a file, FLUX.1's alone so far"
        for name in ("add_q_proj", "single_transformer_blocks", "to_q", "transformer_blocks")
    },
    ("reproduce/costs.py", "FluxProUltra"): "a teacher, and what its pictures cost",
    **{
        ("provenance/foreign.py", name): "a node of ComfyUI's, whose graphs are read"
        for name in ("Flux2Scheduler", "FluxGuidance")
    },
    ("cli/adapter.py", "FluxTransformer2DModel"): "the model whose files adapters/loaders.py knows",
    ("adapters/convert.py", "text_encoder"): "what other tools' files call a part that is refused",
    ("execution/budget.py", "block_out_channels"): "layers of AutoencoderKL, of which strips are known",
    ("data/pixels.py", "16"): "buckets differ by a sixteenth of the size",
    ("execution/rounding.py", "16"): "two codes of 4 bits in a byte",
    (
        "baselines.py",
        "SanaPipeline",
    ): "other models that the paper's tables compare with, drawn as they are",
    ("planning/gpus.py", "16"): "lanes of a PCIe slot",
    ("statistics/intervals.py", "16"): "a series of Student's t",
}
"""(Place, what is named there): why it may."""


def named_in(file: Path) -> Iterator[str]:
    """What this file names that belongs to a family."""
    prose = {id(node.value) for node in ast.walk(tree(file)) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.BinOp):
            yield from sides_in(node)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            if id(node) not in prose:
                yield from words_in(node.value)
        else:
            for name in names_of(node):
                yield from [name] if FAMILY.match(name) else words_in(name)


def names_of(node: ast.AST) -> Iterator[str]:
    for field in ("id", "attr", "arg", "name", "asname"):
        if isinstance(value := getattr(node, field, None), str):
            yield value


def words_in(text: str) -> Iterator[str]:
    for pattern in (CLASS, WORD):
        yield from (match[0] for match in pattern.finditer(text))


def sides_in(node: ast.BinOp) -> Iterator[str]:
    if isinstance(node.op, ast.Mult | ast.FloorDiv | ast.Mod):
        for side in (node.left, node.right):
            if isinstance(side, ast.Constant) and side.value == TOKEN_SIDE:
                yield str(side.value)


def test_nothing_else_names_a_family():
    found = {
        (place(file), name)
        for file in FILES
        if not place(file).startswith(KNOWING)
        for name in named_in(file)
    }
    assert sorted(found - ALLOWED.keys()) == []
    assert sorted(ALLOWED.keys() - found) == [], "these are not named any more: take them off the list"


def test_what_names_a_family_is_found():
    """The families' own folders are full of it."""
    for family in FOLDERS:
        found = {name for file in family.glob("*.py") for name in named_in(file)}
        assert len(found) > 10, family
    assert "pos_embed" in set(named_in(SRC / "urae/families/flux/rotary.py"))


FOLDERS = sorted(file.parent for file in (SRC / "urae/families").glob("*/__init__.py"))


def test_there_are_these_families():
    assert {folder.name for folder in FOLDERS} >= {
        "chroma",
        "flux",
        "flux2",
        "krea2",
        "qwen_image",
        "z_image",
    }


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_every_family_has_the_same_files(folder):
    """A reader of one knows all."""
    assert {file.name for file in folder.glob("*.py")} == {file.name for file in FOLDERS[0].glob("*.py")}

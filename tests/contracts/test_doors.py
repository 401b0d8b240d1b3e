"""One door: nobody but `urae.io` opens a picture, parses a text, reads weights, asks a server or writes a file.

The walk is over the calls in the source, so that the next one is found too. What stays outside is listed, with why.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "urae"

ROOMS = {
    "io": "the door itself",
    "theory": "stands alone by contract: it imports nothing of ours but errors",
    "mini": "stands alone by contract; what it reads ships with it, and what it writes is its own training",
}
"""Rooms that are left out whole."""

ALLOWED = {
    ("adapters/attaching.py", "json.loads"): "of its own text, to hold values as JSON does",
    ("data/caching.py", ".write_text()"): "of its own cache folder, which writes through the door",
    (
        "data/formats/converting.py",
        ".write_bytes()",
    ): "into the temporary folder that `writing_folder` renames",
    ("data/formats/converting.py", ".write_text()"): "likewise",
    ("data/formats/tar.py", "tarfile.open to write"): "likewise",
    ("data/shards.py", ".open() to write"): "on a remote store, in fsspec's transaction",
    ("data/shards.py", "tarfile.open to write"): "into memory",
    ("dpg/benchmark.py", "json.loads"): "of a table's own text, made in the same line",
    ("generation/compare.py", ".write_text()"): "to the kernel, which sets the peak of memory back",
    ("intake/rows.py", ".open() to write"): "its own table of rows, for img2dataset to read",
    ("judge/verdicts.py", "json.loads"): "of a table's own text, made in the same line",
    ("study/ballots.py", "json.loads"): "of a text column that its own database wrote",
    ("study/ballots.py", "os.fdopen to write"): "appends votes, readable by the owner alone",
    ("study/ballots.py", "os.open"): "likewise",
    ("ui/runs.py", ".open() to write"): "the log of a training process, which it appends to itself",
}
"""Calls outside the door: (file, what) -> why."""

FUNCTIONS = {
    *("PIL.Image.open", "json.load", "json.loads", "torch.load", "torch.save"),
    *(
        "yaml.load",
        "yaml.load_all",
        "yaml.full_load",
        "yaml.safe_load",
        "yaml.safe_load_all",
        "yaml.unsafe_load",
    ),
    *("numpy.load", "numpy.save", "numpy.savez", "safetensors.safe_open"),
    *(
        f"safetensors.torch.{name}"
        for name in ("load", "load_file", "load_model", "save", "save_file", "save_model")
    ),
    *(f"os.{name}" for name in ("link", "open", "rename", "renames", "replace", "symlink")),
    *(f"shutil.{name}" for name in ("copy", "copy2", "copyfile", "copytree", "move")),
}
MODULES = ("http.client", "httpx", "pickle", "requests", "tempfile", "urllib.request")
METHODS = ("rename", "write_bytes", "write_text")
"""Of a path. Its `replace` takes one argument, which tells it from a text's."""


def calls_past_the_door(text: str) -> set[str]:
    """What a module does by itself that is the door's, by name."""
    tree = ast.parse(text)
    names, modules = imported(tree)
    calls = (named(node, names) for node in ast.walk(tree) if isinstance(node, ast.Call))
    forbidden = {one for one in MODULES if any(f"{module}.".startswith(f"{one}.") for module in modules)}
    return forbidden | {call for call in calls if call}


def imported(tree: ast.AST) -> tuple[dict[str, str], set[str]]:
    """What each name stands for, and all that is imported."""
    names, modules = {}, set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            inside = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
            for alias in node.names:
                whole = f"{inside}{alias.name}"
                short = alias.name if inside else alias.name.partition(".")[0]
                names[alias.asname or short] = whole if alias.asname or inside else short
                modules.add(whole)
    return names, modules


def named(call: ast.Call, names: dict[str, str]) -> str:
    """The call's name if it goes past the door, otherwise nothing."""
    name = full_name(call.func, names)
    last = name.rpartition(".")[2].removesuffix("()")
    if last.endswith("open") and opens_to_write(call):
        return f"{name} to write"
    is_path_method = name.startswith(".") and (
        last in METHODS or (last == "replace" and len(call.args) == 1 and not call.keywords)
    )
    return name if is_path_method or name in FUNCTIONS else ""


def full_name(function: ast.expr, names: dict[str, str]) -> str:
    """Such as "os.replace", however it was imported; ".open()" for the method of a value."""
    if isinstance(function, ast.Name):
        return names.get(function.id, function.id)
    if not isinstance(function, ast.Attribute):
        return ""
    parts = [function.attr]
    owner = function.value
    while isinstance(owner, ast.Attribute):
        parts, owner = [owner.attr, *parts], owner.value
    if isinstance(owner, ast.Name) and owner.id in names:
        return ".".join([names[owner.id], *parts])
    return f".{function.attr}()"


def opens_to_write(call: ast.Call) -> bool:
    given = [*call.args, *(keyword.value for keyword in call.keywords if keyword.arg == "mode")]
    texts = [one.value for one in given if isinstance(one, ast.Constant) and isinstance(one.value, str)]
    return any(re.fullmatch(r"[rbt]*[wax+][rwaxbt+]*(?:[:|]\w*)?", text) for text in texts)


def test_nobody_else_does_what_the_door_does():
    found = {
        (name, call)
        for path in SOURCE.rglob("*.py")
        if (name := path.relative_to(SOURCE).as_posix()).partition("/")[0] not in ROOMS
        for call in calls_past_the_door(path.read_text(encoding="utf-8"))
    }
    assert found - ALLOWED.keys() == set(), "do it through urae.io, or say here why not"
    assert ALLOWED.keys() - found == set(), "no longer there: take it from the list"


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("from PIL import Image\nImage.open(x)", "PIL.Image.open"),
        ("import PIL.Image\nPIL.Image.open(x)", "PIL.Image.open"),
        ("import json as j\nj.loads(x)", "json.loads"),
        ("from json import loads as read\nread(x)", "json.loads"),
        ("import safetensors.torch as st\nst.load_file(x)", "safetensors.torch.load_file"),
        ("from safetensors import safe_open\nwith safe_open(x) as y: pass", "safetensors.safe_open"),
        ("def f():\n    import urllib.request", "urllib.request"),
        ("from urllib.request import urlopen", "urllib.request"),
        ("from requests import get", "requests"),
        ("import tempfile", "tempfile"),
        ("open(x, 'w')", "open to write"),
        ("open(x, mode='r+b')", "open to write"),
        ("Path(x).open('ab')", ".open() to write"),
        ("self.path.open('xt')", ".open() to write"),
        ("import tarfile\ntarfile.open(x, 'w:gz')", "tarfile.open to write"),
        ("path.write_text(x)", ".write_text()"),
        ("(a / b).replace(c)", ".replace()"),
        ("import os\nos.replace(a, b)", "os.replace"),
    ],
)
def test_what_goes_past_the_door_is_seen(code, name):
    assert calls_past_the_door(code) == {name}


@pytest.mark.parametrize(
    "code",
    [
        "open(x)",
        "path.open('rb')",
        "path.open(newline='', encoding='utf-8')",
        "metric.open('flux', x)",
        "import json\njson.dumps(x)",
        "from urae.io import write_text\nwrite_text(path, x)",
        "from urllib.parse import urlsplit",
        "text.replace('a', 'b')",
        "from dataclasses import replace\nreplace(a, b=1)",
    ],
)
def test_what_does_not_is_not(code):
    assert calls_past_the_door(code) == set()

"""The room as a whole: light, alone, and with every name that it promises."""

import ast
import subprocess
import sys
from pathlib import Path

import urae.io

ROOM = Path(urae.io.__file__).parent
MODULES = sorted(path.stem for path in ROOM.glob("*.py") if path.stem != "__init__")


def imported(path):
    """Names of the modules that a file imports, whenever it does."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def test_it_imports_nothing_of_ours_but_errors_and_exports():
    ours = {name for path in ROOM.glob("*.py") for name in imported(path) if name.startswith("urae")}
    assert {name for name in ours if not name.startswith("urae.io")} == {"urae.errors", "urae.exports"}


def test_only_weights_need_torch_and_nothing_needs_extras():
    light = [f"urae.io.{name}" for name in MODULES if name not in ("weights", "progress", "hub")]
    heavy = ["torch", "diffusers", "transformers", "openai", "pyarrow", "rich", "safetensors"]
    code = f"import sys, {', '.join(light)}; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True).stdout == "[]\n"


def test_every_export_is_there_and_no_module_bears_its_name():
    for name in urae.io.__all__:
        assert getattr(urae.io, name).__name__ == name if name[0].islower() else getattr(urae.io, name)
    assert set(urae.io.__all__).isdisjoint(MODULES)

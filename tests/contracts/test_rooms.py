"""The house: rooms import only from rooms above them, and export what they say they export."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest
from source import FILES, PACKAGES, attributes_of, exports, home, imported, place

ROOT = Path(__file__).parents[2]
ROOMS = sorted(p.parent.name for p in (ROOT / "src" / "urae").glob("*/__init__.py"))


def test_import_contracts_hold():
    tool = Path(sys.executable).parent / "lint-imports"
    result = subprocess.run([tool], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("room", ["", *ROOMS])
def test_exports_exist_and_are_sorted(room):
    module = importlib.import_module(f"urae.{room}".rstrip("."))
    names = list(module.__all__)
    constants_classes_functions = sorted(names, key=lambda n: (not n.isupper(), not n[0].isupper(), n))
    assert names == constants_classes_functions
    for name in names:
        assert getattr(module, name) is not None


def test_what_is_taken_from_a_package_is_exported_by_it():
    """A module of a package is an attribute of it only once somebody has imported it: that would depend on who came
    before."""
    taken = {
        (place(file), f"{package}.{name}", name in exports(package))
        for file in FILES
        for node, alias in imported(file)
        if isinstance(node, ast.ImportFrom) and (package := home(node.module or "", alias.name)) in PACKAGES
        for name in attributes_of(file, alias.asname or alias.name)
    }
    assert len(taken) > 50
    assert sorted(what for what in taken if not what[2]) == []

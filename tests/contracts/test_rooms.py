"""The house: rooms import only from rooms above them, and export what they say they export."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

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

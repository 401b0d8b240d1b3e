"""What packages export: imported when it is first used, and never hidden by a module of its name."""

import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import urae
from urae.cli.data import Data
from urae.cli.verbs import verb

ROOT = Path(urae.__file__).parent
LAZY = sorted(
    ".".join(["urae", *file.parent.relative_to(ROOT).parts])
    for file in ROOT.rglob("__init__.py")
    if "= lazily(__name__)" in file.read_text()
)
MODULES = {
    "urae": {"mini", "recipes", "theory"},
    "urae.dpg": {"server"},
}
"""Exports that are modules."""


@pytest.mark.parametrize("name", LAZY)
def test_no_module_has_the_name_of_an_export(name):
    """Importing a module puts it under its name into the package, in front of what is imported on first use."""
    package = importlib.import_module(name)
    modules = {module.name for module in pkgutil.iter_modules(package.__path__)}
    exports = set(package.__all__) - MODULES.get(name, set())
    assert not modules & exports
    for module in modules:
        importlib.import_module(f"{name}.{module}")
    for export in exports:
        assert not isinstance(getattr(package, export), ModuleType)
    assert dir(package) == sorted(package.__all__)
    with pytest.raises(AttributeError, match=f"module '{name}' has no attribute 'evaluat'"):
        package.evaluat  # noqa: B018


def test_an_export_is_the_same_from_everywhere():
    assert urae.evaluate is importlib.import_module("urae.metrics").evaluate
    assert urae.mini is importlib.import_module("urae.mini")


@pytest.mark.parametrize(
    "code",
    [
        "import urae.metrics, urae.cli.judge, urae.resolution",
        "from urae.resolution import buckets, snap; from urae.data import read_records, convert",
        "from urae.collecting import caption, collect",
    ],
)
def test_torch_is_imported_only_where_something_is_computed(code):
    told = f"{code}\nimport sys; print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "False"


@pytest.mark.parametrize("name", Data.verbs)
def test_the_list_of_commands_says_what_each_says_of_itself(name):
    assert verb(name, package=Data.package).help.startswith(Data.verbs[name])

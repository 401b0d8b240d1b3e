"""The room's exports: imported when they are first used, and never hidden by a module of their name."""

import importlib
import pkgutil
import subprocess
import sys
from types import ModuleType

import pytest

import urae.evaluation


def test_no_module_has_the_name_of_an_export():
    """Importing a module puts it under its name into the room, in front of what is imported on first use."""
    modules = {module.name for module in pkgutil.iter_modules(urae.evaluation.__path__)}
    assert not modules & set(urae.evaluation.__all__)
    for name in modules:
        importlib.import_module(f"urae.evaluation.{name}")
    for name in urae.evaluation.__all__:
        assert not isinstance(getattr(urae.evaluation, name), ModuleType)
    assert urae.evaluate is urae.evaluation.evaluate
    assert dir(urae.evaluation) == sorted(urae.evaluation.__all__)
    with pytest.raises(AttributeError, match="module 'urae.evaluation' has no attribute 'evaluat'"):
        urae.evaluation.evaluat  # noqa: B018


@pytest.mark.parametrize(
    "code",
    [
        "import urae.evaluation, urae.cli.judge",
        "from urae.cli.main import app; app(['study', '--help'], standalone_mode=False)",
    ],
)
def test_torch_is_imported_only_where_something_is_measured(code):
    told = f"{code}\nimport sys; print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "False"

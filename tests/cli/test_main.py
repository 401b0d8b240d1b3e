"""The root command, through the real entry point."""

import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from urae.cli.main import VERBS
from urae.cli.verbs import Listed, verb

URAE = Path(sys.executable).parent / "urae"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([URAE, *arguments], capture_output=True, text=True)


def leaves(name: str, command: object) -> dict[str, object]:
    if isinstance(command, Listed):
        command = command.imported()
    if not hasattr(command, "list_commands"):
        return {name: command}
    parts = {part: command.get_command(None, part) for part in command.list_commands(None)}
    return {path: leaf for part, c in parts.items() for path, leaf in leaves(f"{name} {part}", c).items()}


def test_help_lists_every_verb_without_importing_torch():
    code = "import sys; from urae.cli import app; app(['--help'], standalone_mode=False); print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for name in VERBS:
        assert name in result.stdout
    assert result.stdout.strip().endswith("False")


@pytest.mark.parametrize("name", VERBS)
def test_every_command_shows_an_example(name):
    for path, command in leaves(name, verb(name)).items():
        text = f"{command.help or ''} {getattr(command, 'epilog', '') or ''}"
        assert f"urae {path}" in text, path


def test_a_users_error_is_one_sentence():
    result = run("adapter", "show", "nowhere.safetensors")
    assert result.returncode == 2
    assert result.stderr.startswith("error: nowhere.safetensors does not exist")
    assert len(result.stderr.strip().splitlines()) == 1
    assert result.stdout == ""


def test_the_version_is_that_of_the_package_and_of_what_it_stands_on():
    assert run("--version").stdout == (
        f"urae {version('urae')} (torch {version('torch')}, diffusers {version('diffusers')}, "
        f"transformers {version('transformers')}, peft {version('peft')}, accelerate {version('accelerate')}, "
        f"Python {platform.python_version()})\n"
    )


def test_an_unknown_verb_is_refused():
    result = run("paint")
    assert result.returncode == 2
    assert "No such command 'paint'" in result.stderr

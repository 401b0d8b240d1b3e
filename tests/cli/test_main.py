"""The root command, through the real entry point."""

import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from typer.testing import CliRunner

from urae.cli.main import VERBS, app

URAE = Path(sys.executable).parent / "urae"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([URAE, *arguments], capture_output=True, text=True)


def test_help_lists_every_verb():
    said = run("--help").stdout
    assert all(name in said for name in VERBS)


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


def test_only_the_command_line_asks_for_the_version():
    result = CliRunner(env={"URAE_VERSION": "1"}).invoke(app, ["recipe", "list"])
    assert "flux_2k" in result.stdout
    assert "env var" not in CliRunner().invoke(app, ["--help"]).stdout


@pytest.mark.parametrize(
    ("typed", "meant"),
    [(["genrate"], "generate"), (["data", "collct"], "collect"), (["adapter", "shwo"], "show")],
)
def test_an_unknown_verb_says_what_may_be_meant(typed, meant):
    result = CliRunner().invoke(app, typed)
    assert result.exit_code == 2
    assert f"Did you mean '{meant}'?" in result.stderr


def test_an_unknown_verb_is_refused():
    result = run("paint")
    assert result.returncode == 2
    assert "No such command 'paint'" in result.stderr


def test_the_package_is_the_command():
    """`python -m urae`, for where the command is not on the path."""
    asked = [sys.executable, "-m", "urae", "recipe", "list"]
    assert subprocess.run(asked, capture_output=True, text=True).stdout == run("recipe", "list").stdout != ""
    refused = subprocess.run([*asked[:3], "paint"], capture_output=True, text=True)
    assert (refused.returncode, refused.stderr) == (2, run("paint").stderr)

"""The list of a command's options needs nothing that computes: no torch, no diffusers, and none of their like."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from urae.cli.main import VERBS

HEAVY = [
    "torch",
    "diffusers",
    "transformers",
    "accelerate",
    "peft",
    "pandas",
    "scipy",
    "matplotlib",
    "pyarrow",
    "openai",
]
SHOW = """
import json, sys
from urae.cli.main import app

heavy, found = set(json.loads(sys.argv[1])), {}
for command in json.loads(sys.argv[2]):
    app([*command.split(), "--help"], standalone_mode=False)
    found[command] = sorted(heavy & set(sys.modules))
print(json.dumps(found))
"""
INNER = {
    "data": ["collect", "import", "caption", "cache", "inspect", "convert"],
    "adapter": ["show", "convert", "merge"],
    "study": ["build", "invite", "serve", "report"],
    "theory": ["plot", "simulate", "widths", "advise"],
}


def imported(commands: list[str]) -> dict[str, list[str]]:
    """What is there after the help of each command, all shown by one process."""
    arguments = [json.dumps(HEAVY), json.dumps(commands)]
    run = subprocess.run([sys.executable, "-c", SHOW, *arguments], capture_output=True, text=True, check=True)
    return json.loads(run.stdout.splitlines()[-1])


def test_help_of_no_command_imports_what_computes():
    commands = ["", *VERBS, *(f"{verb} {name}" for verb, names in INNER.items() for name in names)]
    found = imported(commands)
    assert list(found) == commands
    assert {command: modules for command, modules in found.items() if modules} == {}


@pytest.mark.parametrize("typed", ["urae generate --met", "urae generate --decode ", "urae data co"])
def test_completion_imports_nothing_either(typed):
    code = (
        "import atexit, sys\n"
        f"heavy = {HEAVY!r}\n"
        "atexit.register(lambda: print('imported', sorted(set(heavy) & set(sys.modules))))\n"
        "from urae.cli.main import app\n"
        "app(prog_name='urae')\n"
    )
    asked = {
        "_URAE_COMPLETE": "complete_bash",
        "COMP_WORDS": typed,
        "COMP_CWORD": str(len(typed.split(" ")) - 1),
    }
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **asked}
    )
    *offered, last = run.stdout.splitlines()
    assert last == "imported []"
    assert (
        set(offered)
        >= {
            "urae generate --met": {"--method"},
            "urae generate --decode ": {"auto", "whole", "strips", "tiles"},
            "urae data co": {"collect", "convert"},
        }[typed]
    )

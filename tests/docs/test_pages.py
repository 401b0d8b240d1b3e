"""Every Python and shell block of the README and the docs runs, on the miniature, in the order of its page.

The blocks of one page share a namespace and an empty working folder, as a reader who follows the page would.
A block marked `text` is not code. What cannot run inside the tests is listed here, with the reason. Every command is a
process of its own, begun from one that has the libraries already (`processes`).
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import processes

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
BLOCK = re.compile(r"^```(python|bash)\n(.*?)^```", re.MULTILINE | re.DOTALL)
RUN_ELSEWHERE = {
    "make quickstart": "minutes long: tests/quickstart (slow) runs it",
    "make test": "is this",
    "make check": ".ci/run runs it",
    "make test-thorough": "minutes long: .ci/run runs it",
    "make test-slow": "minutes long",
    "make rehearsal": "minutes long: tests/flux_road (slow)",
    "make test-comfyui COMFYUI=folder": "needs a ComfyUI",
    "make docs": "tests/contracts checks that its output is up to date",
    "make bench": "minutes long",
}


def blocks(page: Path) -> list[tuple[str, str]]:
    return BLOCK.findall(page.read_text())


FIRST = ("docs/guides/flux.md",)
"""Pages whose code `make test` runs; `make test-thorough` runs that of all others, the README among them."""


def case(page: Path) -> Any:
    name = str(page.relative_to(ROOT))
    return pytest.param(page, id=name, marks=[] if name in FIRST else pytest.mark.thorough)


@pytest.mark.parametrize("page", [case(page) for page in PAGES if blocks(page)])
def test_the_code_of_a_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PWD", str(tmp_path))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    namespace: dict[str, object] = {"__name__": "__main__"}
    for language, code in blocks(page):
        if language == "python":
            exec(compile(code, str(page), "exec"), namespace)
        else:
            for command in commands(code):
                run_command(command)


def commands(code: str) -> list[str]:
    """One a line. What stands in RUN_ELSEWHERE is checked by whoever runs it; its comment is for the reader."""
    lines = code.replace("\\\n", " ").splitlines()
    return [line for line in lines if line.split("#")[0].strip() not in RUN_ELSEWHERE]


def run_command(command: str) -> None:
    words = shlex.split(os.path.expandvars(command), comments=True)
    if words[:1] == ["urae"]:
        check(processes.urae(*words[1:]), command)
    else:
        run_shell(command)


def run_shell(script: str) -> None:
    script = f"set -euo pipefail\n{script}"
    check(subprocess.run(["bash", "-c", script], capture_output=True, text=True), script)


def check(result: subprocess.CompletedProcess[str], script: str) -> None:
    assert result.returncode == 0, f"{script}\n{result.stdout[-2000:]}\n{result.stderr[-3000:]}"


def test_pages_have_code():
    assert sum(len(blocks(page)) for page in PAGES) > 10

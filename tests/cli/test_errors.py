"""How a command ends: a sentence for a user's error, a report for a bug, a line for Ctrl-C."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from processes import urae


def end_of(body: str) -> subprocess.CompletedProcess[str]:
    """The end of the root command whose `study invite` does what `body` says."""
    code = (
        "import sys\n"
        "from urae.cli import study\n"
        f"def told(*given):\n{body}\n"
        "study.site_url = told\n"
        "from urae.cli.main import app\n"
        "app(['study', 'invite', 'nowhere'])\n"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


def raising(error: str) -> subprocess.CompletedProcess[str]:
    return end_of(f"    {error}")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            "from urae.errors import UraeError; raise UraeError('a [v2] of [red]it[/]')",
            "a [v2] of [red]it[/]",
        ),
        ("from urae.errors import UraeError; raise UraeError('a \\x1b[31m\\x1b]0;title\\x07name')", "a name"),
        ("open('no/such')", "no/such: No such file or directory"),
        ("from urae.io import read_json; read_json('no/such')", "no/such cannot be opened"),
        (
            "import errno, os; raise OSError(errno.EACCES, 'Permission denied', 'a.png')",
            "a.png: Permission denied",
        ),
        ("raise type('OutOfMemoryError', (RuntimeError,), {})('17 GiB')", "the GPU's memory is full"),
        ("import numpy; numpy.zeros(2**50)", "the machine's memory is full"),
        ("import torch; torch.zeros(2**50)", "the machine's memory is full"),
    ],
)
def test_what_a_user_or_the_world_did_is_one_sentence_as_it_is(error, said):
    result = raising(error)
    assert result.returncode == 2
    assert result.stderr.startswith(f"error: {said}")
    assert len(result.stderr.splitlines()) == 1
    assert result.stdout == ""


@pytest.mark.parametrize("error", ["{}['key']", "int('[v2]')", "raise RuntimeError('[v2]')"])
def test_a_bug_is_reported_as_one(error):
    result = raising(error)
    first, second, *_, last = result.stderr.splitlines()
    assert result.returncode == 1
    assert first.startswith("bug: ")
    assert last == first.removeprefix("bug: ")
    assert "report it" in second
    assert "issue tracker" in second
    assert "in told\n" in result.stderr


def test_interrupted_it_says_so_in_a_line():
    result = raising("raise KeyboardInterrupt")
    assert (result.returncode, result.stderr) == (130, "stopped\n")


def test_ctrl_c_ends_it_with_the_same_line():
    # Where the tests run in the background of a shell, processes ignore SIGINT from their start.
    heard = "    import os, signal, time; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    code = f"{heard}    os.kill(os.getpid(), signal.SIGINT); time.sleep(60)"
    result = end_of(code)
    assert (result.returncode, result.stderr) == (128 + signal.SIGINT, "stopped\n")


def test_a_reader_that_has_gone_is_no_error():
    process = subprocess.Popen(
        [sys.executable, "-c", "from urae.cli.main import app; app(['--help'])"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    assert process.stderr
    process.stdout.close()
    assert process.wait() != 0
    assert process.stderr.read() == ""


def test_the_sentence_names_the_file(tmp_path):
    (tmp_path / "recipe.yaml").write_text("size: [1\n")
    (tmp_path / "plain.safetensors").write_bytes(b"no tensors")
    for arguments in (["train", "recipe.yaml"], ["adapter", "show", "plain.safetensors"]):
        result = urae(*arguments, cwd=tmp_path)
        assert result.returncode == 2, result.stderr
        assert result.stderr.startswith(f"error: {arguments[-1]}"), result.stderr

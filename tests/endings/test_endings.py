"""Every long command is ended in its middle, in every way in which the world ends a process, and typed again: nothing
unfinished is left, what was finished stays, and the result is that of an undisturbed run to the byte.

`make endings` runs all of it and prints the table of the security page; `make test` fills the disk of two commands.
"""

from __future__ import annotations

import math
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from commands import COMMANDS, Command, write_material
from started import End, Ending, Started, amount_of, files_of, unfinished

from tiny import with_text_encoders
from tiny_pipelines import tiny_pipeline

ENDINGS = ("SIGKILL", "SIGTERM", "SIGINT", "full disk")
LIGHT = ("data convert", "data import")
KEYS = {"BFL_API_KEY": "bfl-very-secret-key", "OPENAI_API_KEY": "sk-none"}
SHOWN = "URAE_ENDINGS" in os.environ
MIDDLE = 0.4
"""Of files and lines, where a signal comes from outside."""
WORK = (".png", ".safetensors")
"""What takes time to make. Tables, pages and lists are written anew from it."""
TRIES = 4
"""Of a signal that is to come in the middle: a command that has sped up meanwhile may be done before."""


@pytest.fixture(scope="module")
def material(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("endings")
    with_text_encoders(tiny_pipeline()).save_pretrained(folder / "model")
    write_material(folder / "material", folder / "model")
    return folder / "material"


@dataclass(frozen=True)
class Whole:
    """A command that nobody disturbed, and what runs of it that are disturbed are compared with."""

    command: Command
    material: Path
    url: str
    end: End
    folder: Path
    """Where it ran."""
    found: dict[str, list[int]] = field(default_factory=dict)
    """Ending -> files and lines that the second run found, of each time."""

    @property
    def largest(self) -> int:
        """Bytes of the largest file that was made or has grown."""
        sizes = {path.relative_to(self.folder): path.stat().st_size for path in files_of(self.folder)}
        before = {path.relative_to(self.material): path.stat().st_size for path in files_of(self.material)}
        return max(size for path, size in sizes.items() if size != before.get(path))

    @property
    def at_first(self) -> int:
        return amount_of(self.material)

    @property
    def amount(self) -> int:
        """Of what was made: files and lines."""
        return amount_of(self.folder) - self.at_first

    @property
    def row(self) -> str:
        """Of the table."""
        cells = (", ".join(map(str, self.found.get(name, []))) for name in ENDINGS)
        return f"| {' | '.join([self.command.name, *cells, str(self.amount)])} |"


@pytest.fixture(scope="module")
def undisturbed(request, material, tmp_path_factory) -> Iterator[Callable[[Command], Whole]]:
    """From a command to its whole run, which happens once."""
    wholes: dict[str, Whole] = {}
    with pytest.MonkeyPatch.context() as patch, ExitStack() as servers:
        for name, key in KEYS.items():
            patch.setenv(name, key)

        def whole(command: Command) -> Whole:
            if command.name not in wholes:
                url = servers.enter_context(command.server())
                folder = tmp_path_factory.mktemp("whole") / "work"
                end = run(command, material, folder, url, Ending(name="none"))
                assert end.code == 0, end.said
                assert not end.left
                wholes[command.name] = Whole(command, material, url, end, folder)
            return wholes[command.name]

        yield whole
    if SHOWN:
        with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
            print("", *(made.row for made in wholes.values()), sep="\n")


def run(command: Command, material: Path, folder: Path, url: str, ending: Ending) -> End:
    if not folder.exists():
        shutil.copytree(material, folder, symlinks=True)
    return Started(command.words(url), folder, ending, progress=lambda: amount_of(folder)).end()


def moments(whole: Whole, name: str) -> list[Ending]:
    """In the middle of what is written, and between two writes."""
    if name == "full disk":
        return [Ending(name=name, room=room) for room in (0, whole.largest // 2)]
    number = signal.Signals[name]
    in_a_write = Ending(name=name, signal=number, write=math.ceil(whole.end.writes / 2))
    between = Ending(name=name, signal=number, amount=whole.at_first + math.ceil(MIDDLE * whole.amount))
    return [in_a_write, between] if whole.amount > 3 else [in_a_write]


ROWS = [
    pytest.param(
        command,
        name,
        id=f"{command.name}, {name}",
        marks=[] if command.name in LIGHT and name == "full disk" else pytest.mark.slow,
    )
    for command in COMMANDS
    for name in ENDINGS
]


@pytest.mark.parametrize(("command", "name"), ROWS)
def test_a_command_that_was_ended_leaves_nothing_and_goes_on(undisturbed, command, name, tmp_path):
    whole = undisturbed(command)
    whole.found[name] = []
    for number, ending in enumerate(moments(whole, name)):
        folder = tmp_path / str(number)
        end = ended(whole, folder, ending)
        check_what_it_said(end, ending)
        if ending.is_soft:
            assert end.left == []
        before = work_of(folder)
        found = amount_of(folder, finished=True) - whole.at_first
        again = run(whole.command, whole.material, folder, whole.url, Ending(name="none"))
        assert again.code == 0, again.said
        assert unfinished(folder) == []
        assert whole.command.digests(folder) == whole.command.digests(whole.folder)
        if not whole.command.begins_anew:
            after = work_of(folder)
            assert {path: before[path] for path in after.keys() & before.keys()}.items() <= after.items()
        whole.found[name].append(found)


def ended(whole: Whole, folder: Path, ending: Ending) -> End:
    for _ in range(TRIES):
        end = run(whole.command, whole.material, folder, whole.url, ending)
        if end.code != 0:
            return end
        shutil.rmtree(folder)
    raise AssertionError(f"the command was done before it was ended, {TRIES} times")


def check_what_it_said(end: End, ending: Ending) -> None:
    if not ending.is_soft:
        assert end.code == -signal.SIGKILL
        return
    assert "Traceback" not in end.said
    word, code = ("error:", 2) if ending.room is not None else ("stopped", 128 + ending.signal)
    assert end.code == code, end.said
    said = [line for line in end.said.splitlines() if line.startswith(("error", "stopped", "bug"))]
    assert len(said) == 1, end.said
    assert said[0].startswith(word)
    if ending.room is not None:
        assert " cannot be written: " in said[0]
        assert said[0].endswith("run again")


def work_of(folder: Path) -> dict[Path, object]:
    """Finished pictures and weights: which file each is, and when it was written."""
    return {
        path: (path.stat().st_ino, path.stat().st_mtime_ns)
        for path in files_of(folder)
        if path.suffix in WORK
    }

"""Damaged and hostile files at every door: one clear sentence each, or what another reader finds in the file too
(`oracles.py`); never a traceback, and never a value that does not stand there.

`make fuzz` tries many more; it prints the table of the security page.
"""

from __future__ import annotations

import os
import random
import re
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import pytest
from mutations import MUTATIONS
from oracles import answers_as_written
from seeds import DOORS, Door

from urae.io import sentence_of

CASES = int(os.environ.get("URAE_FUZZ_CASES", "2"))
"""Of each kind of damage at each door."""
CONTROLS = re.compile("[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\u202a-\\u202e\\u2066-\\u2069]")
"""What could move the cursor, or turn the line around."""
SILENT = 0
"""Cases that were read as something that does not stand in them: the first one ends the test."""
HANG = 60
"""Seconds, a thousand times what a case takes."""


@contextmanager
def no_hang() -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        raise TimeoutError("the door did not answer")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(HANG)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def answer(door: Door, path: Path, whole: bytes) -> str:
    """What became of a case, "refused", "read" or "read in silence"; anything but a clear sentence is raised."""
    try:
        with no_hang():
            read = door.read(path)
    except TimeoutError:
        raise
    except Exception as error:
        said = sentence_of(error)
        if said is None:
            raise  # what a command reports as a fault of ours, with its traceback
        assert 10 < len(said) < 2_000
        assert not CONTROLS.search(said)
        return "refused"
    return "read" if answers_as_written(door.name, path.read_bytes(), read, whole) else "read in silence"


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.name)
def test_damaged_files_are_refused_by_a_sentence(door, tmp_path, capsys):
    path = tmp_path / door.file
    door.make(path)
    whole = path.read_bytes()
    assert answer(door, path, whole) == "read"  # as it is
    found: Counter[str] = Counter()
    for kind in MUTATIONS:
        for case in range(CASES):
            path.write_bytes(kind(whole, random.Random(f"{door.name}/{kind.__name__}/{case}")))
            try:
                found[became := answer(door, path, whole)] += 1
                assert became != "read in silence"
            except BaseException as error:
                error.add_note(f"{door.name}, {kind.__name__}, case {case}: {path.read_bytes()[:400]!r}")
                raise
    with capsys.disabled():
        if CASES > 2:
            print(
                f"\n| {door.name} | {found.total():,} | {found['refused']:,} | {found['read']:,} | {SILENT} |",
                end="",
            )
    assert found["refused"] > 0


@pytest.mark.parametrize(
    ("door", "content", "read"),
    [
        ("prompts with ids", b'{"id": "a", "prompt": "b"}\n{"id": "c", "prompt": "d"}\n', {"a": "b"}),
        ("prompts with ids", b'{"id": "a", "prompt": "b", "prompt": "c"}\n', {"a": "c"}),
        ("prompts", b"a\xe2\x80\xa8b\n", ["a", "b"]),
        ("journal", b'{"item": "a"}\nnoise\n', [{"item": "a"}]),
    ],
)
def test_what_is_read_in_silence_is_noticed(door, content, read):
    """A lost line, a key twice, a line that is cut at U+2028, damage that is passed over."""
    assert not answers_as_written(door, content, read, content)

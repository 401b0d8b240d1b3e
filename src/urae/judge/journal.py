"""Every answer on the disk before the next thing is done with it, found again by the key of its question."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

from urae.errors import BadFile
from urae.io import Journal, Line, read_journal

__all__ = ["AnswerJournal", "Answers", "read_answers"]

Answers = dict[str, list[dict[str, Any]]]
"""Key of a question -> what was answered, oldest first."""


class AnswerJournal(Journal):
    """The file, open for appending; `answers` holds its lines by key."""

    def __enter__(self) -> Self:
        super().__enter__()
        try:
            self.answers = _by_key(self.lines, self.path)
        except BaseException:
            self.__exit__()
            raise
        return self

    def append(self, line: Line) -> None:
        """On the disk when this returns. Called from several threads, each with other keys."""
        super().append(line)
        self.answers.setdefault(line["key"], []).append(line)


def read_answers(path: Path | str) -> Answers:
    """What a journal holds, by key; nothing where there is no file. `BadFile` for a line that is no answer."""
    return _by_key(read_journal(path), path)


def _by_key(lines: Iterable[Line], path: Path | str) -> Answers:
    answers: Answers = {}
    for number, line in enumerate(lines, 1):
        if not isinstance(line.get("key"), str):
            raise BadFile(f"{path}, line {number} is not an answer: repair or remove it, then run again")
        answers.setdefault(line["key"], []).append(line)
    return answers

"""Prompts with their questions, in the csv format of DPG-Bench (Hu et al., 2024).

One line a question. A question may depend on others, its parents: whether the tiger is striped can only be asked of a
picture that shows a tiger. The questions of a prompt thus form a graph, which is checked when the file is read.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from urae.errors import BadFile
from urae.io import read_text, write_text

__all__ = ["DpgItem", "Question", "read_questions", "write_questions"]

COLUMNS = (
    *("item_id", "text", "keywords", "proposition_id", "dependency"),
    *("category_broad", "category_detailed", "tuple", "question_natural_language"),
)
NO_PARENT = 0


@dataclass(frozen=True, kw_only=True)
class Question:
    """A question that a picture of the prompt answers with yes."""

    id: int
    """Counts from 1 within its prompt."""
    parents: tuple[int, ...]
    """Questions that must be answered yes for this one to count."""
    proposition: str
    """What is asked, as a tuple: "attribute - color (tiger, orange)"."""
    text: str

    @property
    def category(self) -> str:
        """Such as "attribute - color"."""
        return self.proposition.split("(")[0].strip()

    @property
    def broad(self) -> str:
        """Such as "attribute"."""
        return self.category.split("-")[0].strip()


@dataclass(frozen=True, kw_only=True)
class DpgItem:
    """A prompt and its questions, in the order of the file."""

    id: str
    """What its picture is named after."""
    prompt: str
    questions: tuple[Question, ...]

    def __post_init__(self) -> None:
        parents = {question.id: question.parents for question in self.questions}
        if len(parents) < len(self.questions):
            raise ValueError(f"prompt {self.id!r} has two questions of one number: expected each once")
        if unknown := {p for known in parents.values() for p in known} - parents.keys():
            raise ValueError(
                f"prompt {self.id!r} has a question that depends on {min(unknown)}, which is not there"
            )
        try:
            tuple(TopologicalSorter(parents).static_order())
        except CycleError as error:
            raise ValueError(
                f"prompt {self.id!r} has questions that depend on each other in a circle: {error.args[1]}"
            ) from error


def read_questions(path: Path | str) -> tuple[DpgItem, ...]:
    """The prompts of a csv file, such as dpg_bench.csv of the ELLA repository. `BadFile` names what is wrong in it."""
    try:
        rows = list(_rows(csv.DictReader(io.StringIO(read_text(path), newline=""), strict=True), path))
    except csv.Error as error:
        raise BadFile(f"{path} cannot be read as csv: {error}") from error
    if not rows:
        raise BadFile(f"{path} holds no questions")
    items = dict.fromkeys(row["item_id"] for row in rows)
    return tuple(_item(name, [row for row in rows if row["item_id"] == name], path) for name in items)


def write_questions(items: Sequence[DpgItem], path: Path | str) -> Path:
    """The same format, for questions of one's own."""
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, COLUMNS)
    writer.writeheader()
    writer.writerows(_row(item, question) for item in items for question in item.questions)
    write_text(path, stream.getvalue())
    return Path(path)


def _rows(reader: csv.DictReader[str], path: Path | str) -> Iterator[dict[str, str]]:
    # The broad and detailed categories are in the tuple too, and the keywords are for the reader.
    needed = ("item_id", "text", "proposition_id", "dependency", "tuple", "question_natural_language")
    if missing := [column for column in needed if column not in (reader.fieldnames or ())]:
        raise BadFile(f"{path} has no column {missing[0]!r}: expected {', '.join(COLUMNS)}")
    for row in reader:
        if empty := [column for column in needed if not row[column]]:
            raise BadFile(f"line {reader.line_num} of {path} has no {empty[0]}")
        yield row


def _item(name: str, rows: Sequence[Mapping[str, str]], path: Path | str) -> DpgItem:
    texts = {row["text"] for row in rows}
    if len(texts) > 1:
        raise BadFile(f"{path} has {len(texts)} different texts for the prompt {name!r}: expected one")
    try:
        return DpgItem(id=name, prompt=texts.pop(), questions=tuple(map(_question, rows)))
    except ValueError as error:
        raise BadFile(f"{path}: {error}") from error


def _question(row: Mapping[str, str]) -> Question:
    return Question(
        id=_number(row["proposition_id"]),
        parents=tuple(parent for parent in map(_number, row["dependency"].split(",")) if parent != NO_PARENT),
        proposition=row["tuple"],
        text=row["question_natural_language"],
    )


def _number(text: str) -> int:
    if not text.strip().isdecimal():
        raise ValueError(f"the number of a question is {text!r}: expected digits, 0 for no dependency")
    return int(text)


def _row(item: DpgItem, question: Question) -> dict[str, str | int]:
    return {
        "item_id": item.id,
        "text": item.prompt,
        "keywords": "",
        "proposition_id": question.id,
        "dependency": ",".join(map(str, question.parents or (NO_PARENT,))),
        "category_broad": question.broad,
        "category_detailed": question.category.partition("-")[2].strip(),
        "tuple": question.proposition,
        "question_natural_language": question.text,
    }

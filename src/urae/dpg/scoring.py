"""From answers to the score, by the rule of DPG-Bench; as it is meant, or as the published script computes it.

A question earns a point if it is answered yes and all that it depends on has earned theirs. A picture's score is its
share of points, a prompt's the mean over its pictures, the benchmark's the mean over prompts. A category's score is
the share of yes among all its questions, dependencies apart.

The published script (`dpg_bench/compute_dpg_bench.py`) departs from this, and `compat="official"` with it: it never
reads the first question of the file, and so fails on the prompt that it belongs to, where a question comes to it, and
leaves that out; a question that stands before one it depends on keeps its point; categories know the last picture of a
grid alone; and only "yes", letter by letter, is yes.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import fsum
from typing import Literal

from urae.dpg.questions import DpgItem, Question

__all__ = ["Compat", "Scores", "YesShare", "read_answer", "score"]

Compat = Literal["fixed", "official"]
Answers = Mapping[int, str]
"""Of one picture: question -> what the model said."""


@dataclass(frozen=True, kw_only=True)
class YesShare:
    """Of questions answered yes."""

    yes: int
    questions: int

    @property
    def value(self) -> float:
        return self.yes / self.questions


@dataclass(frozen=True, kw_only=True)
class Scores:
    """A candidate's result."""

    prompts: Mapping[str, float]
    """Item -> score in [0, 1]."""
    categories: Mapping[str, YesShare]
    """Such as "attribute - color", in the order in which they first come."""
    broad: Mapping[str, YesShare]
    """Such as "attribute"."""
    left_out: tuple[str, ...]
    """Items on which the published script fails; none by the fixed rule."""

    @property
    def mean(self) -> float:
        """DPG-Bench's number, in [0, 1]."""
        return fsum(self.prompts.values()) / len(self.prompts)


def score(
    items: Sequence[DpgItem], answers: Mapping[str, Sequence[Answers]], *, compat: Compat = "fixed"
) -> Scores:
    """Scores of `answers`: item -> for each of its pictures, question -> what the model said.

    `items` are all of the file, in its order: the published script forgets the first question of the first. An item
    without answers is not counted.
    """
    if compat not in ("fixed", "official"):
        raise ValueError(f"compat is {compat!r}: expected fixed or official")
    official = compat == "official"
    read = {item.id: item.questions for item in items}
    if official:
        read |= {item.id: item.questions[1:] for item in items[:1]}
    points = {
        name: [_points(questions, tile, official) for tile in answers[name]]
        for name, questions in read.items()
        if name in answers
    }
    able = {name: read[name] for name in points if not (official and _fails(read[name], points[name]))}
    earned = _earned_in_order if official else _earned
    return Scores(
        prompts={
            name: _mean([_mean(earned(questions, tile)) for tile in points[name]])
            for name, questions in able.items()
        },
        categories=_shares(able, points, "category", official),
        broad=_shares(able, points, "broad", official),
        left_out=tuple(name for name in points if name not in able),
    )


def read_answer(text: str) -> bool | None:
    """Whether an answer says yes; None where its first word is neither yes nor no, or stands beside the other, as in
    "Yes/No"."""
    word = re.match(r"\W*(\w+)", text)
    both = re.match(r"\W*(yes|no)\W*(?:\b(?:or|and)\b\W*)?(yes|no)\b", text, re.IGNORECASE)
    if word is None or (both and both[1].casefold() != both[2].casefold()):
        return None
    return {"yes": True, "no": False}.get(word[1].casefold())


def _fails(questions: Sequence[Question], tiles: Sequence[Mapping[int, bool]]) -> bool:
    """Whether the published script comes to the question that it has not read: not where an earlier parent says no."""
    try:
        for tile in tiles:
            _earned_in_order(questions, tile)
    except KeyError:
        return True
    return not questions


def _points(questions: Sequence[Question], answers: Answers, official: bool) -> dict[int, bool]:
    """Question -> whether it was answered yes, before dependencies. What cannot be read is no yes."""
    said = {question.id: answers[question.id] for question in questions}
    return {number: text == "yes" if official else read_answer(text) is True for number, text in said.items()}


def _earned(questions: Sequence[Question], points: Mapping[int, bool]) -> list[bool]:
    parents = {question.id: question.parents for question in questions}

    def earns(number: int) -> bool:
        return points[number] and all(earns(parent) for parent in parents[number])

    return [earns(question.id) for question in questions]


def _earned_in_order(questions: Sequence[Question], points: Mapping[int, bool]) -> list[bool]:
    """One walk in the order of the file: a parent that comes later is seen before its own parents cost it its point."""
    earned = dict(points)
    for question in questions:
        earned[question.id] &= all(earned[parent] for parent in question.parents)
    return list(earned.values())


def _shares(
    items: Mapping[str, Sequence[Question]],
    points: Mapping[str, Sequence[Mapping[int, bool]]],
    level: Literal["category", "broad"],
    official: bool,
) -> dict[str, YesShare]:
    found: dict[str, list[bool]] = defaultdict(list)
    for name, questions in items.items():
        for tile in points[name][-1:] if official else points[name]:
            for question in questions:
                found[getattr(question, level)].append(tile[question.id])
    return {name: YesShare(yes=sum(values), questions=len(values)) for name, values in found.items()}


def _mean(values: Sequence[float]) -> float:
    return fsum(values) / len(values)

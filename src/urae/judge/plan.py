"""What will be asked, known before anything is spent: every question with its key, and what it will cost.

A key is a hash of everything that an answer depends on: model, options, words, view and pixels, in the order
shown. So an answer is used again exactly where it is the answer to the same question.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from urae.exports import takes
from urae.io import file_hash, picture_part, text_part
from urae.judge.answer import SCHEMAS, read_answer
from urae.judge.endpoint import Endpoint
from urae.judge.instructions import KINDS, Instructions, Kind, read_instructions
from urae.judge.journal import Answers
from urae.judge.pictures import DETAIL, View
from urae.metrics.matching import MatchedItem, match_pictures
from urae.statistics.intervals import check_prompts

__all__ = [
    "ASPECTS",
    "ATTEMPTS",
    "Cost",
    "JudgeQuestion",
    "JudgingPlan",
    "JudgingRequest",
    "estimated",
    "plan_judging",
]

ASPECTS = ("overall", "alignment", "aesthetics", DETAIL)
ATTEMPTS = 2
"""An answer that cannot be read is asked for once more, then counted as invalid."""
REMINDER = "Your last answer was not in the form that was asked for. Keep to that form exactly."
PICTURE_TOKENS = 765
"""OpenAI's count for a square picture in high detail (768 px, four tiles)."""
OUTPUT_TOKENS = 60
"""A sentence of reason and the verdict: what an answer is taken to cost."""


@dataclass(frozen=True, kw_only=True)
class JudgeQuestion:
    """Two pictures in the order shown, or one to be scored."""

    kind: Kind
    aspect: str
    item: MatchedItem
    shown: tuple[str, ...]
    """Candidates, in order."""
    text: str
    key: str


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What is still to be paid; tokens are estimates, from four characters and `PICTURE_TOKENS` each."""

    num_questions: int
    num_answered: int
    """By an earlier run."""
    input_tokens: int
    output_tokens: int

    @property
    def num_requests(self) -> int:
        return self.num_questions - self.num_answered

    def price(self, *, per_million_in: float, per_million_out: float) -> float:
        """In the currency of the two prices."""
        return (self.input_tokens * per_million_in + self.output_tokens * per_million_out) / 1e6


def estimated(asked: Sequence[tuple[str, int]], *, num_answered: int = 0) -> Cost:
    """Of questions that are still to be asked, each as its text and its number of pictures."""
    characters, pictures = sum(len(text) for text, _ in asked), sum(num for _, num in asked)
    return Cost(
        num_questions=len(asked) + num_answered,
        num_answered=num_answered,
        input_tokens=pictures * PICTURE_TOKENS + characters // 4,
        output_tokens=len(asked) * OUTPUT_TOKENS,
    )


@dataclass(frozen=True, kw_only=True)
class JudgingRequest:
    """What a judge is asked about each picture."""

    aspects: Sequence[str] = field(default=ASPECTS, metadata={"option": "--aspect"})
    """Repeat for several; all of them by default."""
    kinds: Sequence[str] = field(default=KINDS, metadata={"option": "--kind"})
    """pair, score, or both by repeating."""
    against: str = ""
    """Compare the others with this candidate only, not all pairs."""


@dataclass(frozen=True, kw_only=True)
class JudgingPlan:
    """Everything that will be asked: it can be printed, compared, and run by `judge`. Made by `plan_judging`."""

    endpoint: Endpoint
    instructions: Instructions
    view: View
    candidates: tuple[str, ...]
    aspects: tuple[str, ...]
    kinds: tuple[Kind, ...]
    pairs: tuple[tuple[str, str], ...]
    items: tuple[MatchedItem, ...]
    questions: tuple[JudgeQuestion, ...]
    unused: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """By candidate, the pictures that belong to no prompt."""

    def __str__(self) -> str:
        return (
            f"judge: {self.endpoint.model} at {self.endpoint.base_url}\n"
            f"prompts: {len(self.items)}, candidates: {len(self.candidates)}, pairs: {len(self.pairs)}, each in both "
            f"orders, aspects: {', '.join(self.aspects)}"
        )

    def read(self, question: JudgeQuestion, answers: Answers) -> float | None:
        """The first valid answer to a question; None if there is none."""
        texts = (record["text"] for record in answers.get(question.key, ()))
        values = (read_answer(text, question.kind, self.instructions.answers) for text in texts)
        return next((value for value in values if value is not None), None)

    def pending(self, answers: Answers) -> list[JudgeQuestion]:
        """Questions without a valid answer that have attempts left, each key once."""
        open_questions = {
            question.key: question
            for question in self.questions
            if len(answers.get(question.key, ())) < ATTEMPTS and self.read(question, answers) is None
        }
        return list(open_questions.values())

    def cost(self, answers: Answers) -> Cost:
        pending, different = self.pending(answers), {question.key for question in self.questions}
        asked = [(one.text, len(one.shown) * self.view.num_shown(one.aspect)) for one in pending]
        return estimated(asked, num_answered=len(different) - len(pending))

    def schema(self, question: JudgeQuestion) -> Mapping[str, Any]:
        return SCHEMAS[question.kind] if self.instructions.answers == "json" else {}

    def content(self, question: JudgeQuestion, attempt: int) -> list[dict[str, Any]]:
        """The parts of the message: the instruction, then each picture under its name."""
        parts = [text_part(question.text)]
        for place, name in enumerate(question.shown, 1):
            uris = self.view.show(question.item.pictures[name], question.aspect, question.item.id)
            for number, uri in enumerate(uris, 1):
                crop = f", crop {number} of {len(uris)}" if question.aspect == DETAIL else ""
                label = f"Image {place}{crop}:" if question.kind == "pair" else f"Image{crop}:"
                parts += [text_part(label), picture_part(uri)]
        return parts + ([text_part(REMINDER)] if attempt else [])


@takes(JudgingRequest)
def plan_judging(
    candidates: Mapping[str, Path | str],
    prompts: Mapping[str, str],
    *,
    endpoint: Endpoint,
    instructions: Instructions | None = None,
    view: View | None = None,
    **asked: Any,
) -> JudgingPlan:
    """Questions for `candidates` (name -> folder of `<id>.png`) on `prompts` (id -> text); other arguments are the
    fields of `JudgingRequest`.

    Pairs are of all candidates, or of `against` with each other one; each is asked in both orders. Scores are asked
    once for each picture. `ValueError` where something is missing, of different sizes, unknown, or too little to
    show anything.
    """
    instructions, view, request = instructions or read_instructions(), view or View(), JudgingRequest(**asked)
    aspects, against = request.aspects, request.against
    kinds: Any = request.kinds  # which `_check` checks
    _check(candidates, prompts, aspects, kinds, against, instructions)
    items, unused = match_pictures({name: Path(folder) for name, folder in candidates.items()}, prompts)
    for item in items:
        view.check(item, tuple(aspects))
    pairs = _pairs(tuple(candidates), against) if "pair" in kinds else ()
    hashes = {path: file_hash(path) for item in items for path in item.pictures.values()}
    questions = [
        _question(*asking, endpoint, instructions, view, hashes)
        for asking in _asked(items, tuple(candidates), aspects, kinds, pairs)
    ]
    return JudgingPlan(
        endpoint=endpoint,
        instructions=instructions,
        view=view,
        candidates=tuple(candidates),
        aspects=tuple(aspects),
        kinds=tuple(kinds),
        pairs=pairs,
        items=tuple(items),
        questions=tuple(questions),
        unused=unused,
    )


Asking = tuple[Kind, str, MatchedItem, tuple[str, ...]]


def _asked(
    items: Sequence[MatchedItem],
    candidates: Sequence[str],
    aspects: Sequence[str],
    kinds: Sequence[Kind],
    pairs: Sequence[tuple[str, str]],
) -> Iterator[Asking]:
    """By prompt first, so that a run that was stopped has whole prompts."""
    for item, aspect in itertools.product(items, aspects):
        for a, b in pairs:
            yield "pair", aspect, item, (a, b)
            yield "pair", aspect, item, (b, a)
        for name in candidates if "score" in kinds else ():
            yield "score", aspect, item, (name,)


def _question(
    kind: Kind,
    aspect: str,
    item: MatchedItem,
    shown: tuple[str, ...],
    endpoint: Endpoint,
    instructions: Instructions,
    view: View,
    hashes: Mapping[Path, str],
) -> JudgeQuestion:
    text = instructions.text(kind, aspect, item.prompt)
    identity = {
        "model": endpoint.model,
        "options": endpoint.options,
        "schema": endpoint.schema and instructions.answers == "json",
        "kind": kind,
        "text": text,
        "view": view.describe(aspect),
        # The places of the crops depend on the id.
        "item": item.id if aspect == DETAIL else "",
        "pictures": [hashes[item.pictures[name]] for name in shown],
    }
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    return JudgeQuestion(kind=kind, aspect=aspect, item=item, shown=shown, text=text, key=key)


def _pairs(candidates: tuple[str, ...], against: str) -> tuple[tuple[str, str], ...]:
    if against:
        return tuple((name, against) for name in candidates if name != against)
    return tuple(itertools.combinations(candidates, 2))


def _check(
    candidates: Mapping[str, Path | str],
    prompts: Mapping[str, str],
    aspects: Sequence[str],
    kinds: Sequence[Kind],
    against: str,
    instructions: Instructions,
) -> None:
    check_prompts(len(set(prompts.values())))
    if not kinds or not aspects or len(set(kinds)) < len(kinds) or len(set(aspects)) < len(aspects):
        raise ValueError(
            f"kinds are {list(kinds)} and aspects {list(aspects)}: expected some of each, each once"
        )
    if unknown := set(kinds) - set(KINDS):
        raise ValueError(f"there is no kind {sorted(unknown)[0]!r}: expected {' or '.join(KINDS)}")
    if "pair" in kinds and len(candidates) < 2 or not candidates:
        raise ValueError(
            f"there are {len(candidates)} candidates: expected at least two, or one and scores alone"
        )
    if against and ("pair" not in kinds or against not in candidates):
        raise ValueError(
            f"against is {against!r}: expected one of {', '.join(candidates)}, and pairs to be asked"
        )
    for kind, aspect in itertools.product(kinds, aspects):
        if aspect not in instructions.texts[kind]:
            known = ", ".join(instructions.texts[kind]) or "none"
            raise ValueError(f"the instructions have no {kind} text for aspect {aspect!r}: they have {known}")

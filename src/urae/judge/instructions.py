"""The words that the judge is asked in: our own, to the criteria of the paper's Appendix C.1, or those of a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from urae.errors import BadFile
from urae.io import read_yaml

__all__ = ["KINDS", "Instructions", "Kind", "read_instructions"]

Kind = Literal["pair", "score"]
KINDS: tuple[Kind, ...] = ("pair", "score")
AnswerForm = Literal["json", "brackets"]
MARKER = "{prompt}"
OWN = Path(__file__).with_name("instructions.yaml")

FORMATS: Mapping[Kind, str] = {
    "pair": 'Answer with a JSON object and nothing else: {"reason": "one sentence", "winner": "first"}. '
    'The winner is "first", "second", or "tie" where you see no difference that matters.',
    "score": 'Answer with a JSON object and nothing else: {"reason": "one sentence", "score": 50}. '
    "The score is a number from 0 to 100.",
}


@dataclass(frozen=True, kw_only=True)
class Instructions:
    """Texts by kind of question and aspect, and the form of the answers."""

    answers: AnswerForm
    texts: Mapping[Kind, Mapping[str, str]]

    def text(self, kind: Kind, aspect: str, prompt: str) -> str:
        """The whole instruction for a prompt, with the form of the answer where that is ours."""
        # A plain replacement: prompts hold braces.
        text = self.texts[kind][aspect].replace(MARKER, prompt).strip()
        return text if self.answers == "brackets" else f"{text}\n\n{FORMATS[kind]}"


def read_instructions(path: Path | str = "") -> Instructions:
    """Instructions of a YAML file shaped like `instructions.yaml` beside this module, or of that one; `BadFile` says
    what is wrong."""
    path = path or OWN
    content = read_yaml(path)
    if not isinstance(content, dict) or not {"answers"} < content.keys() <= {"answers", *KINDS}:
        raise BadFile(f"{path} holds no instructions: expected the keys answers, pair and score")
    if content["answers"] not in ("json", "brackets"):
        raise BadFile(f"{path} has answers: {content['answers']!r}; expected json or brackets")
    return Instructions(
        answers=content["answers"], texts={kind: _texts(content.get(kind, {}), kind, path) for kind in KINDS}
    )


def _texts(content: object, kind: Kind, path: Path | str) -> dict[str, str]:
    if not isinstance(content, dict):
        raise BadFile(f"{path} has no texts under {kind}: expected an aspect and its text in each line")
    for aspect, text in content.items():
        if not isinstance(text, str) or text.count(MARKER) != 1:
            raise BadFile(f"{path}: the text of {kind} / {aspect} must hold {MARKER} exactly once")
    return {str(aspect): text for aspect, text in content.items()}

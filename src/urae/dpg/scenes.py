"""DPG-Bench on the miniature: questions that follow from a scene, and its recogniser as the model that answers.

So the benchmark runs for real without any download: true renderings score 1, pictures of other scenes near 0.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from typing import ClassVar

import torch
from PIL import Image

from urae.dpg.answerer import Ask, ModelAnswer
from urae.dpg.questions import DpgItem, Question
from urae.metrics import LocalWeights
from urae.mini import RELATIONS, STYLES, Scene
from urae.mini.recogniser import GLYPHS, GROUNDS, WEIGHTS, Recogniser, recogniser, to_input

__all__ = ["SceneModel", "scene_item"]

PRESENT = 2.0
"""The recogniser was trained to see a glyph where the smooth maximum of its votes exceeds this."""


def scene_item(name: str, scene: Scene) -> DpgItem:
    """The scene's caption with a question for each thing, its style, the relation of two, and the background."""
    asked: list[tuple[tuple[int, ...], str, str]] = []
    for thing in scene.things:
        asked.append(((), f"entity - whole ({thing.name})", f"Is there {_a(thing.name)}?"))
        style = f"attribute - style ({thing.name}, {thing.style})"
        asked.append(((len(asked),), style, f"Is the {thing.name} {thing.style}?"))
    if scene.relation:
        first, second = (thing.name for thing in scene.things)
        relation = f"relation - spatial ({first}, {second}, {scene.relation})"
        asked.append(((1, 3), relation, f"Is the {first} {scene.relation} the {second}?"))
    ground = f"global - background ({scene.background})"
    asked.append(((), ground, f"Is the background {scene.background}?"))
    questions = (
        Question(id=number, parents=parents, proposition=proposition, text=text)
        for number, (parents, proposition, text) in enumerate(asked, 1)
    )
    return DpgItem(id=name, prompt=scene.caption(), questions=tuple(questions))


@dataclass(frozen=True, kw_only=True)
class SceneModel:
    """The miniature's recogniser. It answers the questions of `scene_item` and no others."""

    attempts: ClassVar[int] = 1
    concurrency: ClassVar[int] = 1
    untrained: ClassVar[bool] = False
    name: ClassVar[str] = "recogniser of the miniature"

    @property
    def identity(self) -> str:
        """Hash of the shipped weights."""
        return f"{self.name} {_hash_of_weights()}"

    @contextmanager
    def opened(self) -> Iterator[Ask]:
        """Load it."""
        yield partial(_answers, recogniser())


@dataclass(frozen=True, kw_only=True)
class _Look:
    """What one picture shows, told without knowing what to expect."""

    styles: dict[str, str]
    """Objects that are there, each with its style."""
    places: dict[str, tuple[int, int]]
    """(row, column) of each on an 8 x 8 grid."""
    background: str

    def says(self, question: str) -> bool:
        if match := re.fullmatch(r"Is there an? (.+)\?", question):
            return match[1] in self.styles
        if match := re.fullmatch(r"Is the background (.+)\?", question):
            return match[1] == self.background
        if match := re.fullmatch(rf"Is the (.+) ({'|'.join(STYLES)})\?", question):
            return self.styles.get(match[1]) == match[2]
        if match := re.fullmatch(rf"Is the (.+) ({'|'.join(RELATIONS)}) the (.+)\?", question):
            return self._stand(*match.groups())
        raise ValueError(
            f"the miniature's recogniser is asked {question!r}: expected a question about one of its scenes, "
            "as scene_item writes them"
        )

    def _stand(self, first: str, relation: str, second: str) -> bool:
        if first not in self.places or second not in self.places:
            return False
        (row, column), (other_row, other_column) = self.places[first], self.places[second]
        down, right = other_row - row, other_column - column
        if relation in ("left of", "right of"):
            return abs(right) >= abs(down) and (right > 0) == (relation == "left of")
        return abs(down) > abs(right) and (down > 0) == (relation == "above")


def _answers(
    network: Recogniser, picture: Image.Image, questions: Sequence[str], attempt: int
) -> Iterator[ModelAnswer]:
    look = _look(network, picture)
    for question in questions:
        yield ModelAnswer(text="yes" if look.says(question) else "no", model=SceneModel.name)


@torch.inference_mode()
def _look(network: Recogniser, picture: Image.Image) -> _Look:
    votes, grounds = network(to_input(picture)[None])
    flat = votes[0].flatten(1)
    evidence = torch.logsumexp(flat * 2, dim=1) / 2
    styles, places = {}, {}
    for index in evidence.argsort(descending=True).tolist():
        name, style = GLYPHS[index]
        if evidence[index] > PRESENT and name not in styles:
            styles[name] = style
            places[name] = divmod(int(flat[index].argmax()), votes.shape[-1])
    return _Look(styles=styles, places=places, background=GROUNDS[int(grounds[0].argmax())])


@cache
def _hash_of_weights() -> str:
    return LocalWeights(WEIGHTS).sha256


def _a(name: str) -> str:
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"

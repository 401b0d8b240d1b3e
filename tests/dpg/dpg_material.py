"""Questions in the official format, an answerer that says what a test needs, and pictures of scenes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from urae.dpg.answerer import ModelAnswer
from urae.dpg.questions import DpgItem, Question
from urae.dpg.scenes import scene_item
from urae.mini import Scene, render, scene

OFFICIAL = """\
item_id,text,keywords,proposition_id,dependency,category_broad,category_detailed,tuple,question_natural_language
partiprompts97,"A tiger, striped.",,1,0,entity,whole,entity - whole (tiger),Is there a tiger?
partiprompts97,"A tiger, striped.",,2,1,attribute,texture,"attribute - texture (tiger, striped)",Is the tiger striped?
7,A red cup on a desk,,1,0,entity,whole,entity - whole (cup),Is there a cup?
7,A red cup on a desk,,2,1,attribute,color,"attribute - color (cup, red)",Is the cup red?
7,A red cup on a desk,,3,0,entity,whole,entity - whole (desk),Is there a desk?
7,A red cup on a desk,,4,"1, 3",relation,spatial,"relation - spatial (cup, desk, on)",Is the cup on the desk?
"""


def question(number: int, *parents: int, kind: str = "entity - whole") -> Question:
    return Question(id=number, parents=parents, proposition=f"{kind} (x)", text=f"Is it {number}?")


def item(name: str, *questions: Question) -> DpgItem:
    return DpgItem(id=name, prompt=f"prompt {name}", questions=questions)


@dataclass
class Oracle:
    """Says what `answer(picture, question, attempt)` returns, and remembers what it was asked."""

    answer: Callable[[Image.Image, str, int], str]
    name: str = "oracle"
    attempts: int = 1
    concurrency: int = 1
    untrained: bool = False
    asked: list[str] = field(default_factory=list)

    @property
    def identity(self) -> str:
        return self.name

    @contextmanager
    def opened(self) -> Iterator:
        yield self._ask

    def _ask(self, picture, questions, attempt) -> Iterator[ModelAnswer]:
        for text in questions:
            self.asked.append(text)
            yield ModelAnswer(text=self.answer(picture, text, attempt), model=self.name)


def scenes(num: int = 8) -> dict[str, Scene]:
    return {f"s{i}": scene(2_000_000 + i) for i in range(num)}


def scene_items(num: int = 8) -> list[DpgItem]:
    return [scene_item(name, one) for name, one in scenes(num).items()]


def draw(folder: Path, shown: dict[str, Scene], size: int = 128) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, one in shown.items():
        render(one, size).save(folder / f"{name}.png", compress_level=1)
    return folder

"""Who answers: the one signature of a local model, a server, and the miniature's recogniser."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from PIL import Image

__all__ = ["INSTRUCTION", "Answerer", "Ask", "ModelAnswer"]

INSTRUCTION = "Answer with yes or no only."
"""What a chat model is told after each question."""


@dataclass(frozen=True, kw_only=True)
class ModelAnswer:
    """What was said, unread."""

    text: str
    model: str
    """Who says to have said it."""


Ask = Callable[[Image.Image, Sequence[str], int], Iterable[ModelAnswer]]
"""An RGB picture, questions about it, and how many times they have been asked before -> an answer each, in order."""


class Answerer(Protocol):
    """A model that answers questions about pictures."""

    @property
    def name(self) -> str:
        """What results are labelled with."""

    @property
    def identity(self) -> str:
        """All that an answer depends on beside picture and question."""

    @property
    def untrained(self) -> bool:
        """Whether its weights are random."""

    @property
    def attempts(self) -> int:
        """How often a question is asked whose answer cannot be read."""

    @property
    def concurrency(self) -> int:
        """Pictures asked about at a time."""

    def opened(self) -> AbstractContextManager[Ask]:
        """Load or connect what answers; called only if there is something to ask."""

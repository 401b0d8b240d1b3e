"""Any OpenAI-compatible server as the model that answers, through the client of the judge."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from PIL import Image

from urae.dpg.answerer import INSTRUCTION, Ask, ModelAnswer
from urae.io import picture_part, text_part
from urae.judge.endpoint import Endpoint
from urae.pages import data_uri, thumbnail

__all__ = ["OPTIONS", "ServerModel"]

OPTIONS = {"temperature": 0, "seed": 0, "max_completion_tokens": 16}
"""Sent with each request. A model that thinks aloud before it answers needs more tokens."""
REMINDER = "Your last answer was not one word. Say yes or no, and nothing else."


@dataclass(frozen=True, kw_only=True)
class ServerModel:
    """A model behind a server; what it is asked costs money or somebody's GPU, so each answer is kept at once."""

    attempts: ClassVar[int] = 2
    """An answer that cannot be read is asked for once more, with a reminder."""
    untrained: ClassVar[bool] = False

    endpoint: Endpoint
    concurrency: int = 4
    """Requests at a time."""
    max_side: int = 2048
    """Longer side, px, of the JPEG (quality 95, full colour) that is sent; nothing is enlarged."""

    @property
    def name(self) -> str:
        """The model's name at its server."""
        return self.endpoint.model

    @property
    def identity(self) -> str:
        """Model, options and what is sent; not the address, which may change."""
        sent = {"options": self.endpoint.options, "instruction": INSTRUCTION, "max_side": self.max_side}
        return f"{self.name} {json.dumps(sent, sort_keys=True)}"

    @contextmanager
    def opened(self) -> Iterator[Ask]:
        """A connection. `MissingExtra` without the `openai` package."""
        with self.endpoint.client() as client:
            yield partial(self._ask, client)

    def _ask(
        self, client: Any, picture: Image.Image, questions: Sequence[str], attempt: int
    ) -> Iterator[ModelAnswer]:
        shown = data_uri(thumbnail(picture, self.max_side), quality=95, subsampling=0)
        for question in questions:
            text = " ".join([question, INSTRUCTION, *([REMINDER] if attempt else [])])
            content = [text_part(text), picture_part(shown)]
            key = hashlib.sha256(f"{shown} {self.identity} {text}".encode()).hexdigest()
            reply = self.endpoint.ask(client, content, schema={}, key=key)
            yield ModelAnswer(text=reply.text, model=reply.model)

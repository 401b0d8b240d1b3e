"""The model that describes images: what it is asked, and what it is shown.

The image is reduced to fit `max_side` and sent as JPEG without metadata: a caption is of what can be seen, and a 4K
original would cost its upload and be reduced by the server. It is never enlarged.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from urae.io import (
    OPENAI,
    Reply,
    Server,
    picture_part,
    read_picture,
    read_text,
    text_part,
)
from urae.pages import data_uri, thumbnail

__all__ = ["OPTIONS", "Captioner", "own_instruction"]

OPTIONS: Mapping[str, Any] = {"temperature": 0, "max_completion_tokens": 500}
QUALITY = 90


def own_instruction() -> str:
    """Our own instruction text."""
    return read_text(Path(__file__).with_name("caption_instruction.txt")).strip()


@dataclass(frozen=True, kw_only=True)
class Captioner:
    """A vision-language model behind any OpenAI-compatible endpoint, and what it is asked."""

    model: str
    """Name of the model at its server."""
    instruction: str = field(default_factory=own_instruction)
    max_side: int = field(default=1024, metadata={"min": 64})
    """Images are reduced to fit, px."""
    options: Mapping[str, Any] = field(default_factory=lambda: dict(OPTIONS))
    """Sent with each request; older servers want `max_tokens` in place of `max_completion_tokens`."""
    base_url: str = OPENAI
    """Any server that speaks chat completions with pictures."""
    key_variable: str = "OPENAI_API_KEY"
    """Environment variable with the API key; only servers other than OpenAI's are asked without one."""
    timeout: float = 120.0
    """Seconds for one request."""
    retries: int = field(default=8, metadata={"min": 0})
    """Repeats of a request after 429, 5xx or a timeout; with the client's pauses some 40 seconds in all."""

    def __post_init__(self) -> None:
        self._server  # noqa: B018  refuses an address with a password in it
        if not self.instruction.strip():
            raise ValueError("the instruction is empty: expected a text that asks for a caption")
        if self.max_side < 64:
            raise ValueError(f"max_side is {self.max_side} px: expected at least 64")

    def key(self, image_id: str) -> str:
        """Names a caption by all that it depends on: the image's bytes, model, instruction, size and options."""
        asked = [image_id, self.model, self.instruction, self.max_side, QUALITY, dict(self.options)]
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()

    def connect(self) -> Any:
        """A client; `MissingExtra` without the openai package, `ValueError` without a key."""
        return self._server.connect(retries=self.retries)

    def describe(self, client: Any, path: Path, *, key: str) -> Reply:
        """Ask once. `key` names the request to servers that know `Idempotency-Key`. Raises `Unanswered`, and
        `Unreadable` for an image that cannot be decoded."""
        content = [text_part(self.instruction), picture_part(shown(path, self.max_side))]
        return self._server.chat(client, content, model=self.model, options=self.options, key=key)

    @property
    def _server(self) -> Server:
        return Server(base_url=self.base_url, key_variable=self.key_variable, timeout=self.timeout)


def shown(path: Path, max_side: int) -> str:
    """The image as it is sent: upright, sRGB, at most `max_side` px, as a data URI. Raises `Unreadable`."""
    return data_uri(thumbnail(read_picture(path), max_side), quality=QUALITY)

"""The model that describes images: what it is asked, what it is shown, and what counts as a caption.

The image is reduced to fit `max_side` and sent as JPEG without metadata: a caption is of what can be seen, and a 4K
original would cost its upload and be reduced by the server. It is never enlarged.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from urae.collecting.openai_server import OPENAI, OpenAIServer, import_openai, is_refusal
from urae.collecting.teachers.teacher import Unserved
from urae.data.image import read_image

__all__ = ["OPTIONS", "Answer", "Captioner", "own_instruction"]

OPTIONS: Mapping[str, Any] = {"temperature": 0, "max_completion_tokens": 500}
QUALITY = 90
MIN_WORDS = 12
"""A refusal in words is shorter; so is a caption that says nothing."""
COUNTED = ("prompt_tokens", "completion_tokens")


def own_instruction() -> str:
    """Our own instruction text."""
    return Path(__file__).with_name("caption_instruction.txt").read_text(encoding="utf-8").strip()


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came back for one image."""

    text: str
    outcome: Literal["caption", "invalid", "refused"]
    model: str
    """The model that the server says it used."""
    usage: Mapping[str, int]
    """`prompt_tokens` and `completion_tokens`, where the server counts them."""


@dataclass(frozen=True, kw_only=True)
class Captioner:
    """A vision-language model behind any OpenAI-compatible endpoint, and what it is asked."""

    model: str
    instruction: str = field(default_factory=own_instruction)
    max_side: int = 1024
    """Of the image in the request, px."""
    options: Mapping[str, Any] = field(default_factory=lambda: dict(OPTIONS))
    """Sent with each request; older servers want `max_tokens` in place of `max_completion_tokens`."""
    base_url: str = OPENAI
    key_variable: str = "OPENAI_API_KEY"
    """Environment variable with the API key; only servers other than OpenAI's are asked without one."""
    timeout: float = 120.0
    """Seconds."""
    retries: int = 8
    """Of one request; with the client's pauses some 40 seconds in all."""

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

    def describe(self, client: Any, path: Path, *, key: str) -> Answer:
        """Ask once. `key` names the request to servers that know `Idempotency-Key`. Raises `Unserved`, and `BadFile`
        for an image that cannot be decoded."""
        openai, picture = import_openai(), {"url": shown(path, self.max_side), "detail": "high"}
        content = [{"type": "text", "text": self.instruction}, {"type": "image_url", "image_url": picture}]
        try:
            answer = client.chat.completions.with_raw_response.create(
                model=self.model,
                messages=[{"role": "user", "content": content}],
                extra_body=dict(self.options),
                extra_headers={"Idempotency-Key": key},
            )
            return self._read(answer.text() if callable(answer.text) else answer.text)
        except openai.APIError as error:
            if is_refusal(error):
                return Answer(text="", outcome="refused", model=self.model, usage={})
            # Not chained: the original message may repeat the key.
            raise Unserved(self._server.blackened(f"{self._place} wrote no caption: {error}")) from None

    def _read(self, reply: str) -> Answer:
        try:
            body = json.loads(reply)
            (choice, *_) = body["choices"]
            text, ended = choice["message"].get("content") or "", choice.get("finish_reason")
        except (ValueError, LookupError, TypeError, AttributeError):
            start = self._server.blackened(" ".join(reply[:120].split()))
            raise Unserved(f"{self._place} answered with no chat completion: {start!r}") from None
        caption = " ".join(self._server.blackened(text).split())
        whole = ended != "length" and len(caption.split()) >= MIN_WORDS
        usage = body.get("usage") or {}
        return Answer(
            text=caption,
            outcome="refused" if ended == "content_filter" else "caption" if whole else "invalid",
            model=str(body.get("model") or self.model),
            usage={name: usage[name] for name in COUNTED if isinstance(usage.get(name), int)},
        )

    @property
    def _place(self) -> str:
        return f"{self.model} at {self.base_url}"

    @property
    def _server(self) -> OpenAIServer:
        return OpenAIServer(base_url=self.base_url, key_variable=self.key_variable, timeout=self.timeout)


def shown(path: Path, max_side: int) -> str:
    """The image as it is sent: upright, sRGB, at most `max_side` px, as a data URI. Raises `Unreadable`."""
    image = read_image(path)
    image.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
    image.info.clear()  # A comment would be sent along, and may tell what the picture shows.
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"

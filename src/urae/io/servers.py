"""An OpenAI-compatible server: how it is reached, what it is asked, and what its failures mean to somebody who pays.

The `openai` client does the waiting: it repeats a request after 408, 409, 429, 5xx, a lost connection or a timeout,
with growing pauses or the server's own Retry-After, up to two minutes. The API key comes from the environment and goes
nowhere but into the requests: texts in which a server repeats it are blackened. Redirections are not followed, which
would carry pictures and prompts to another server.
"""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

from urae.errors import BadFile, MissingExtra, UraeError
from urae.io.texts import parse_json_object

__all__ = [
    "OPENAI",
    "Reply",
    "Server",
    "Unanswered",
    "import_openai",
    "is_refusal",
    "is_unpaid",
    "picture_part",
    "text_part",
]

OPENAI = "https://api.openai.com/v1"
REFUSALS = ("content_filter", "content_policy_violation", "moderation_blocked")
"""Codes of an error that says no to this request, and would again."""
UNPAID = ("insufficient_quota", "billing_hard_limit_reached")
"""Codes that come with status 429 or 400, and that no waiting changes."""
COUNTED = ("prompt_tokens", "completion_tokens")
MOST_BYTES = 512 * 2**20
"""Of an answer, which may be a picture in base64."""


class Unanswered(UraeError):
    """The server gave no answer; those that came before are kept."""


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What came back, and what it cost."""

    text: str
    """Empty where the server refused to answer."""
    model: str
    """The model that the server says it used."""
    fingerprint: str
    usage: Mapping[str, int]
    """`prompt_tokens` and `completion_tokens`, where the server counts them."""
    finish_reason: str
    """Why the text ends: "stop", "length", "content_filter" also where the request was refused; may be empty."""


@dataclass(frozen=True, kw_only=True)
class Server:
    """Where requests go."""

    base_url: str = OPENAI
    """Any server that speaks chat completions with pictures."""
    key_variable: str = "OPENAI_API_KEY"
    """Environment variable with the API key; only servers other than OpenAI's are asked without one."""
    timeout: float = 120.0
    """Seconds for one request to be answered, and again for its answer to arrive."""

    def __post_init__(self) -> None:
        if "@" in urlsplit(self.base_url).netloc:
            # It would be in what is printed, in journals and in every record.
            raise ValueError(
                f"base_url holds a password: give it without, and the key in the variable {self.key_variable}"
            )
        if urlsplit(self.base_url).scheme not in ("http", "https"):
            raise ValueError(
                f"base_url is {self.base_url!r}: expected an address that begins with http(s)://"
            )

    def connect(self, *, retries: int = 0, extra: str = "data") -> Any:
        """A client, which is a context manager. `MissingExtra` without the openai package, `ValueError` without a
        key."""
        openai, key = import_openai(extra), os.environ.get(self.key_variable, "")
        if not key and self.base_url == OPENAI:
            raise ValueError(f"{self.key_variable} is not set: export it with the API key of {self.base_url}")
        return openai.OpenAI(
            base_url=self.base_url,
            api_key=key or "none",
            timeout=self.timeout,
            max_retries=retries,
            http_client=_bounded(openai, self.timeout),
        )

    def chat(
        self,
        client: Any,
        content: list[dict[str, Any]],
        *,
        model: str,
        options: Mapping[str, Any],
        schema: Mapping[str, Any] | None = None,
        key: str,
    ) -> Reply:
        """Ask once. `options` are sent with the request; `schema`, if not empty, holds the answer to JSON of that form;
        `key` names the request to servers that know `Idempotency-Key`, so that a repeat is not paid twice. Raises
        `Unanswered`."""
        openai, place = import_openai(), f"{model} at {self.base_url}"
        try:
            response = client.chat.completions.with_raw_response.create(
                model=model,
                messages=[{"role": "user", "content": content}],
                extra_body={**options, **(_response_format(schema) if schema else {})},
                extra_headers={"Idempotency-Key": key},
            )
            return self._reply(response.http_response.content, model, place)
        except openai.APIError as error:
            if is_refusal(error):
                return Reply(text="", model=model, fingerprint="", usage={}, finish_reason="content_filter")
            said = "refused the request" if isinstance(error, openai.BadRequestError) else "gave no answer"
            # Not chained: the original message may repeat the key.
            raise Unanswered(self.blackened(f"{place} {said}: {error.__cause__ or error}")) from None

    def blackened(self, text: str) -> str:
        """`text` without the key."""
        key = os.environ.get(self.key_variable, "")
        return text.replace(key, "***") if key else text

    def _reply(self, answer: bytes, model: str, place: str) -> Reply:
        try:
            body = parse_json_object(answer, name="the answer")
            choice = body["choices"][0]
            content = choice["message"].get("content")
        except (BadFile, LookupError, TypeError, AttributeError):
            start = self.blackened(" ".join(answer[:120].decode(errors="replace").split()))
            raise Unanswered(f"{place} answered with no chat completion: {start!r}") from None
        counted = usage if isinstance(usage := body.get("usage"), dict) else {}
        return Reply(
            text=self.blackened(content) if isinstance(content, str) else "",
            model=self.blackened(str(body.get("model") or model)),
            fingerprint=self.blackened(str(body.get("system_fingerprint") or "")),
            usage={name: n for name in COUNTED if type(n := counted.get(name)) is int and n >= 0},
            finish_reason=str(choice.get("finish_reason") or ""),
        )


def text_part(text: str) -> dict[str, Any]:
    """A text as a part of what is asked."""
    return {"type": "text", "text": text}


def picture_part(uri: str) -> dict[str, Any]:
    """A picture, by the address that holds it, to be looked at in full."""
    return {"type": "image_url", "image_url": {"url": uri, "detail": "high"}}


def import_openai(extra: str = "data") -> ModuleType:
    """The openai package, or the line that installs it."""
    try:
        import openai
    except ImportError as error:
        raise MissingExtra(f"OpenAI-compatible servers need openai: pip install 'urae[{extra}]'") from error
    return openai


def is_refusal(error: Any) -> bool:
    """Whether an error of the client is a refusal of this one request."""
    return getattr(error, "code", None) in REFUSALS


def is_unpaid(error: Any) -> bool:
    """Whether it says that the account has no money left."""
    return getattr(error, "code", None) in UNPAID


def _response_format(schema: Mapping[str, Any]) -> dict[str, Any]:
    described = {"name": "verdict", "strict": True, "schema": schema}
    return {"response_format": {"type": "json_schema", "json_schema": described}}


def _bounded(openai: ModuleType, timeout: float) -> Any:
    """A client of HTTP whose answers have an end: its own timeout begins anew with each piece, packed bytes grow."""
    # httpx, or what openai has in its place.
    httpx = importlib.import_module(openai.DefaultHttpxClient.__mro__[1].__module__.partition(".")[0])

    class Bounded(httpx.SyncByteStream):  # type: ignore[name-defined]
        def __init__(self, stream: Any) -> None:
            self.stream, self.deadline = stream, time.monotonic() + timeout

        def __iter__(self) -> Iterator[bytes]:
            length = 0
            for piece in self.stream:
                length += len(piece)
                if length > MOST_BYTES:
                    raise httpx.ReadError(f"the answer is longer than {MOST_BYTES} bytes")
                if time.monotonic() > self.deadline:
                    raise httpx.ReadTimeout("the answer takes too long")
                yield piece

        def close(self) -> None:
            self.stream.close()

    def bound(response: Any) -> None:
        if response.headers.get("content-encoding", "identity") != "identity":
            raise httpx.ReadError("the answer is packed, which it was asked not to be")
        response.stream = Bounded(response.stream)

    hooks, headers = {"response": [bound]}, {"Accept-Encoding": "identity"}
    return openai.DefaultHttpxClient(
        follow_redirects=False, timeout=timeout, event_hooks=hooks, headers=headers
    )

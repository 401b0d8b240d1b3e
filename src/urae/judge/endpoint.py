"""Asking one question of an OpenAI-compatible server (chat completions with pictures).

The `openai` client does the waiting: it repeats a request after 408, 409, 429, 5xx, a lost connection or a timeout,
with growing pauses or the server's own Retry-After. The API key comes from the environment and goes nowhere but
into the request: messages and answers in which a server repeats it are blackened.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from urae.errors import MissingExtra, UraeError

__all__ = ["OPENAI", "Endpoint", "Reply", "Unanswered"]

OPENAI = "https://api.openai.com/v1"
OPTIONS: Mapping[str, Any] = {"temperature": 0, "seed": 0, "max_completion_tokens": 512}
COUNTED = ("prompt_tokens", "completion_tokens")
REFUSALS = ("content_filter", "content_policy_violation")


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


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Who is asked, and how."""

    model: str
    base_url: str = OPENAI
    key_variable: str = "OPENAI_API_KEY"
    """Environment variable with the API key; only servers other than OpenAI's are asked without one."""
    options: Mapping[str, Any] = field(default_factory=lambda: dict(OPTIONS))
    """Sent with each request; older servers want `max_tokens` in place of `max_completion_tokens`."""
    schema: bool = True
    """Hold the answer to its JSON schema by `response_format`; False for a server that does not know it."""
    timeout: float = 120.0
    """Seconds."""
    retries: int = 8
    """Of one request; with the client's pauses some 40 seconds in all."""

    def connect(self) -> Any:
        """A client of the `openai` package; `MissingExtra` without the package, `ValueError` without a key."""
        openai, key = _openai(), os.environ.get(self.key_variable, "")
        if not key and self.base_url == OPENAI:
            raise ValueError(f"{self.key_variable} is not set: export it with the API key of {self.base_url}")
        return openai.OpenAI(
            base_url=self.base_url,
            api_key=key or "none",
            timeout=self.timeout,
            max_retries=self.retries,
        )

    def ask(
        self, client: Any, content: list[dict[str, Any]], *, schema: Mapping[str, Any], key: str
    ) -> Reply:
        """One request. `key` names it to servers that know `Idempotency-Key`, so that a repeat is not paid twice.

        An empty schema leaves the form of the answer to the instruction. Raises `Unanswered`.
        """
        openai = _openai()
        body = {**self.options, **(_response_format(schema) if schema and self.schema else {})}
        try:
            response = client.chat.completions.with_raw_response.create(
                model=self.model,
                messages=[{"role": "user", "content": content}],
                extra_body=body,
                extra_headers={"Idempotency-Key": key},
            )
            text = response.text
            return self._reply(text() if callable(text) else text)
        except openai.BadRequestError as error:
            if getattr(error, "code", None) in REFUSALS:
                return Reply(text="", model=self.model, fingerprint="", usage={})
            raise Unanswered(self._blackened(f"{self._place} refused the request: {error}")) from None
        except openai.APIError as error:
            # Not chained: the original message may repeat the key.
            raise Unanswered(self._blackened(f"{self._place} gave no answer: {error}")) from None

    def _reply(self, text: str) -> Reply:
        try:
            body = json.loads(text)
            message = body["choices"][0]["message"]
            content = message.get("content")
        except (ValueError, LookupError, TypeError, AttributeError):
            start = self._blackened(" ".join(text[:120].split()))
            raise Unanswered(f"{self._place} answered with no chat completion: {start!r}") from None
        usage = body.get("usage") or {}
        return Reply(
            text=self._blackened(content) if isinstance(content, str) else "",
            model=self._blackened(str(body.get("model") or self.model)),
            fingerprint=self._blackened(str(body.get("system_fingerprint") or "")),
            usage={name: usage[name] for name in COUNTED if isinstance(usage.get(name), int)},
        )

    @property
    def _place(self) -> str:
        return f"{self.model} at {self.base_url}"

    def _blackened(self, text: str) -> str:
        key = os.environ.get(self.key_variable, "")
        return text.replace(key, "***") if key else text


def _response_format(schema: Mapping[str, Any]) -> dict[str, Any]:
    described = {"name": "verdict", "strict": True, "schema": schema}
    return {"response_format": {"type": "json_schema", "json_schema": described}}


def _openai() -> ModuleType:
    try:
        import openai
    except ImportError as error:
        raise MissingExtra("asking a server needs openai: pip install 'urae[judge]'") from error
    return openai

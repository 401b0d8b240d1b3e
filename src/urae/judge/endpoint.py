"""Who is asked: a model at an OpenAI-compatible server, and what is sent with each question."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from urae.io import Reply, Server

__all__ = ["OPTIONS", "Endpoint"]

OPTIONS: Mapping[str, Any] = {"temperature": 0, "seed": 0, "max_completion_tokens": 512}


@dataclass(frozen=True, kw_only=True)
class Endpoint(Server):
    """Who is asked, and how."""

    model: str
    """Name of the model at its server."""
    options: Mapping[str, Any] = field(default_factory=lambda: dict(OPTIONS))
    """Sent with each request; older servers want `max_tokens` in place of `max_completion_tokens`."""
    schema: bool = True
    """Hold answers to a JSON schema, by `response_format`; not every server can."""
    retries: int = field(default=8, metadata={"min": 0})
    """Repeats of a request after 429, 5xx or a timeout; with the client's pauses some 40 seconds in all."""

    def client(self) -> Any:
        """A connection, which is a context manager. `MissingExtra` without openai, `ValueError` without a key."""
        return self.connect(retries=self.retries, extra="judge")

    def ask(
        self, client: Any, content: list[dict[str, Any]], *, schema: Mapping[str, Any], key: str
    ) -> Reply:
        """One request. `key` names it to servers that know `Idempotency-Key`, so that a repeat is not paid twice.

        An empty schema leaves the form of the answer to the instruction. Raises `Unanswered`.
        """
        asked = schema if self.schema else None
        return self.chat(client, content, model=self.model, options=self.options, schema=asked, key=key)

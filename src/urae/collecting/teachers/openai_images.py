"""Any server with OpenAI's images endpoint (POST /images/generations) as the teacher.

The answer holds the image itself, or an address to download it from. An order carries an `Idempotency-Key`, for
servers that know one; the client's own repetitions are off, because a request that ran into its timeout may be paid.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from urae.collecting.teachers.asking import download
from urae.collecting.teachers.teacher import (
    ImageOrder,
    Later,
    Moderated,
    TakenOrder,
    Unserved,
    check_mix,
    mix_of,
    parse_size,
)
from urae.errors import BadFile
from urae.io import OPENAI, Server, import_openai, is_refusal, is_unpaid, parse_json_object, seconds_to_wait
from urae.resolution import Size

__all__ = ["BYTEPLUS", "OpenAIImages"]

BYTEPLUS = "https://ark.ap-southeast.bytepluses.com/api/v3"
TERMS: Mapping[str, str] = {
    OPENAI: "OpenAI's terms (openai.com/policies): images may not be used to develop models that compete with theirs",
    BYTEPLUS: "BytePlus ModelArk's terms (docs.byteplus.com/legal): read what they say about training other models on "
    "images",
}
"""By the address of the server."""


@dataclass(frozen=True, kw_only=True)
class OpenAIImages:
    """A model behind an OpenAI-compatible images endpoint."""

    model: str
    shapes: Mapping[str, float] = field(default_factory=lambda: mix_of("1024x1024", "1536x1024", "1024x1536"))
    """Sizes that the model knows, such as "1024x1024", with weights."""
    offered: Sequence[str] = ()
    """Other sizes that it knows, from which a mix for a size of training is chosen."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Sent with each order, such as {"quality": "high", "output_format": "png"}."""
    send_seed: bool = False
    """Send a seed; OpenAI's own models refuse one."""
    price: float = math.nan
    """What an image costs at the server, 0 where it is free. It is never guessed."""
    concurrency: int = 4
    rate: float = 60.0
    """Most orders a minute."""
    base_url: str = OPENAI
    key_variable: str = "OPENAI_API_KEY"
    timeout: float = 300.0
    """Seconds for one order: the answer comes when the image is made."""

    gives_tickets = False
    poll_every = 1.0

    def __post_init__(self) -> None:
        check_mix(self.shapes)
        self.sizes  # noqa: B018  refuses what is no size
        self._server  # noqa: B018  refuses an address with a password in it

    @property
    def name(self) -> str:
        return self.model

    @property
    def sizes(self) -> Mapping[str, Size]:
        return {shape: parse_size(shape) for shape in (*self.offered, *self.shapes)}

    @property
    def terms(self) -> str:
        return TERMS.get(
            self.base_url.rstrip("/"), f"of {self.base_url}, which are not known here: read them"
        )

    def price_of(self, shape: str) -> float:
        return self.price

    def settings(self) -> dict[str, Any]:
        return {"base_url": self.base_url, "send_seed": self.send_seed, "options": dict(self.options)}

    def ready(self) -> None:
        self._client.api_key  # noqa: B018

    def order(self, wanted: ImageOrder) -> TakenOrder:
        body = {**self.options, **({"seed": wanted.seed} if self.send_seed else {})}
        openai = import_openai()
        try:
            answer = self._client.images.with_raw_response.generate(
                model=self.model,
                prompt=wanted.prompt,
                size=wanted.shape,
                extra_body=body,
                extra_headers={"Idempotency-Key": self._idempotency_key(wanted)},
            )
            return self._taken(answer.text() if callable(answer.text) else answer.text)
        except openai.APIError as error:
            # Not chained: the original message may repeat the key.
            raise self._failure(error) from None

    def fetch(self, ticket: dict[str, Any]) -> bytes:
        return download(str(ticket["url"]), timeout=self.timeout, base_url=self.base_url)

    def _idempotency_key(self, wanted: ImageOrder) -> str:
        """The same for a repetition after a lost answer, another for an order that is meant to be another."""
        asked = json.dumps([self.settings(), asdict(wanted)], sort_keys=True)
        return hashlib.sha256(asked.encode()).hexdigest()

    def _taken(self, text: str) -> TakenOrder:
        try:
            image = parse_json_object(text, name="the answer")["data"][0]
            if image.get("b64_json"):
                return TakenOrder(cost=self.price, image=base64.b64decode(image["b64_json"], validate=True))
            return TakenOrder(cost=self.price, ticket={"url": image["url"]})
        except (BadFile, ValueError, LookupError, TypeError, AttributeError):
            start = self._server.blackened(" ".join(text[:120].split()))
            raise Unserved(f"{self._place} answered with no image: {start!r}", ordered=True) from None

    def _failure(self, error: Any) -> Later | Moderated | Unserved:
        openai = import_openai()
        said = self._server.blackened(f"{self._place} gave no image: {error}")
        if is_refusal(error):
            return Moderated(said)
        if isinstance(error, openai.APIConnectionError):
            return Later(said, ordered=True)
        if is_unpaid(error) or getattr(error, "status_code", 0) not in (408, 409, 429, *range(500, 600)):
            return Unserved(said)
        return Later(said, seconds=seconds_to_wait(error.response.headers), ordered=error.status_code > 503)

    @property
    def _place(self) -> str:
        return f"{self.model} at {self.base_url}"

    @property
    def _server(self) -> Server:
        return Server(base_url=self.base_url, key_variable=self.key_variable, timeout=self.timeout)

    @cached_property
    def _client(self) -> Any:
        return self._server.connect()

"""An OpenAI-compatible server: how it is reached, and what its failures mean to somebody who pays.

The API key comes from the environment and goes nowhere but into the requests: texts in which a server repeats it are
blackened.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

from urae.errors import MissingExtra

__all__ = ["OPENAI", "REFUSALS", "OpenAIServer", "import_openai"]

OPENAI = "https://api.openai.com/v1"
REFUSALS = ("content_filter", "content_policy_violation", "moderation_blocked")
"""Codes of an error that says no to this request, and would again."""
UNPAID = ("insufficient_quota", "billing_hard_limit_reached")
"""Codes that come with status 429 or 400, and that no waiting changes."""


@dataclass(frozen=True, kw_only=True)
class OpenAIServer:
    """Where requests go."""

    base_url: str = OPENAI
    key_variable: str = "OPENAI_API_KEY"
    """Environment variable with the API key; only servers other than OpenAI's are asked without one."""
    timeout: float = 120.0
    """Seconds for one request."""

    def __post_init__(self) -> None:
        if "@" in urlsplit(self.base_url).netloc:
            # It would be in what is printed, in journals and in every record.
            raise ValueError(
                f"base_url holds a password: give it without, and the key in the variable {self.key_variable}"
            )

    def connect(self, *, retries: int = 0) -> Any:
        """A client that repeats a request after 408, 409, 429, 5xx, a lost connection or a timeout, and waits in
        between as the server asks. `MissingExtra` without the openai package, `ValueError` without a key."""
        openai, key = import_openai(), os.environ.get(self.key_variable, "")
        if not key and self.base_url == OPENAI:
            raise ValueError(f"{self.key_variable} is not set: export it with the API key of {self.base_url}")
        return openai.OpenAI(
            base_url=self.base_url, api_key=key or "none", timeout=self.timeout, max_retries=retries
        )

    def blackened(self, text: str) -> str:
        """`text` without the key."""
        key = os.environ.get(self.key_variable, "")
        return text.replace(key, "***") if key else text


def import_openai() -> ModuleType:
    """The openai package, or the line that installs it."""
    try:
        import openai
    except ImportError as error:
        raise MissingExtra("OpenAI-compatible servers need openai: pip install 'urae[data]'") from error
    return openai


def is_refusal(error: Any) -> bool:
    """Whether an error of the client is a refusal of this one request."""
    return getattr(error, "code", None) in REFUSALS


def is_unpaid(error: Any) -> bool:
    """Whether it says that the account has no money left."""
    return getattr(error, "code", None) in UNPAID

"""What a failed request means to somebody who pays: whether an order may have been taken, and whether to ask again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from urae import io
from urae.collecting.teachers.teacher import Expired, Later, Unserved
from urae.io import Answer, BadAddress, NoAnswer, check_public, seconds_to_wait, without_query

__all__ = ["ask", "download"]

EXPIRED = (401, 403, 404, 410)
"""What signed addresses answer after their time."""


def ask(
    url: str, *, headers: Mapping[str, str], body: Mapping[str, Any] | None = None, timeout: float
) -> Answer:
    """POST `body` as JSON, or GET where there is none; any status is an answer. Raises `Later` where no whole answer
    comes, `ordered` if the server may have got the request, and `Unserved` for an address that is not HTTP."""
    try:
        return io.exchange(url, headers=headers, body=body, timeout=timeout)
    except NoAnswer as error:
        raise Later(str(error), ordered=error.sent) from None
    except BadAddress as error:
        raise Unserved(str(error)) from None


def download(url: str, *, timeout: float, base_url: str) -> bytes:
    """An image from the address that the server at `base_url` names, which may have expired: on its own host or in the
    public network. Raises `Expired`, or `Later` where it does not come whole."""
    try:
        if urlsplit(url).hostname != urlsplit(base_url).hostname:
            check_public(url)
        answer = io.download(url, timeout=timeout)
    except (NoAnswer, BadAddress) as error:
        raise Later(str(error)) from None
    if answer.status in EXPIRED:
        raise Expired(f"{without_query(url)} has expired (status {answer.status})")
    if answer.status != 200:
        raise Later(
            f"{without_query(url)} answered with status {answer.status}",
            seconds=seconds_to_wait(answer.headers),
        )
    return answer.body

"""One HTTP request, with the questions that matter to somebody who pays: was it sent, and is the answer whole?

The standard library's client, so that collecting needs no extra package; it honours HTTPS_PROXY and its like.
"""

from __future__ import annotations

import base64
import hashlib
import json
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit

from urae.collecting.teachers.teacher import Expired, Later, Unserved

__all__ = ["Reply", "download", "exchange", "seconds_to_wait", "without_query"]

MAX_BYTES = 512 * 2**20
"""Of one answer; an image of 8192 x 8192 px in 16 bits has less."""
CHUNK = 2**16
EXPIRED = (401, 403, 404, 410)
"""What signed addresses answer after their time."""
NEVER_SENT = (ConnectionRefusedError, socket.gaierror, ssl.SSLCertVerificationError)


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What a server answered."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes

    def json(self) -> dict[str, Any]:
        """The body's JSON object, empty where it is none."""
        try:
            parsed = json.loads(self.body)
        except ValueError:
            return {}
        return parsed if isinstance(parsed, dict) else {}

    @property
    def text(self) -> str:
        """The start of the body, in one line."""
        return " ".join(self.body[:2000].decode(errors="replace").split())[:200]


def seconds_to_wait(headers: Mapping[str, str]) -> float:
    """What `Retry-After` asks for, as seconds or as a date; 0 where it is not there. Names in lower case."""
    value = headers.get("retry-after", "0")
    try:
        return max(float(value), 0.0)
    except ValueError:
        pass
    try:
        return max(parsedate_to_datetime(value).timestamp() - time.time(), 0.0)
    except ValueError:
        return 0.0


def exchange(
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    body: Mapping[str, Any] | None = None,
    timeout: float,
    follow: bool = False,
) -> Reply:
    """POST `body` as JSON, or GET where there is none; any status is a reply. `timeout`: seconds, for all of it.

    Redirections are followed only on request: they would take the headers, and a key in them, along. Raises `Later`
    where no whole answer comes, `ordered` if the server may have got the request, and `Unserved` for an address that
    is not HTTP.
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise Unserved(f"the server names an address that is not HTTP: {without_query(url)}")
    data = None if body is None else json.dumps(body).encode()
    sent = urllib.request.Request(
        url, data=data, headers={"Content-Type": "application/json", **(headers or {})}
    )
    deadline = time.monotonic() + timeout
    try:
        with urllib.request.build_opener(_AnyStatus(follow)).open(sent, timeout=timeout) as response:
            return Reply(
                status=response.status,
                headers={name.lower(): value for name, value in response.headers.items()},
                body=_read(response, deadline),
            )
    except (urllib.error.URLError, OSError, HTTPException) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        never_sent = isinstance(reason, NEVER_SENT)
        raise Later(
            f"no whole answer from {without_query(url)} ({type(reason).__name__}: {reason})",
            ordered=not never_sent,
        ) from None


def download(url: str, *, timeout: float) -> bytes:
    """A file from an address that may have expired. Raises `Expired`, or `Later` where it does not come whole."""
    reply = exchange(url, timeout=timeout, follow=True)
    if reply.status in EXPIRED:
        raise Expired(f"{without_query(url)} has expired (status {reply.status})")
    if reply.status != 200:
        raise Later(
            f"{without_query(url)} answered with status {reply.status}",
            seconds=seconds_to_wait(reply.headers),
        )
    _check_whole(reply, url)
    return reply.body


def without_query(url: str) -> str:
    """An address fit to be shown: signed ones carry their signature in the query."""
    return url.partition("?")[0]


class _AnyStatus(urllib.request.HTTPErrorProcessor):
    """Hands every answer on; redirections are followed only if `follow`."""

    def __init__(self, follow: bool) -> None:
        self.follow = follow

    def http_response(self, request: Any, response: Any) -> Any:
        moved = self.follow and 300 <= response.status < 400
        return super().http_response(request, response) if moved else response

    https_response = http_response


def _read(response: Any, deadline: float) -> bytes:
    """The body, in pieces: a server that sends a byte a second meets the deadline, not only the socket's."""
    pieces, length = [], 0
    while piece := response.read1(CHUNK):
        pieces.append(piece)
        length += len(piece)
        if length > MAX_BYTES:
            raise OSError(f"the answer is longer than {MAX_BYTES} bytes")
        if time.monotonic() > deadline:
            raise TimeoutError("the answer takes too long")
    announced = response.headers.get("Content-Length")
    if announced is not None and length != int(announced):
        raise OSError(f"{length} bytes came instead of {announced}")
    return b"".join(pieces)


def _check_whole(reply: Reply, url: str) -> None:
    """Object stores send the MD5 of what they hold: a JPEG with a wrong byte decodes, to another picture."""
    stored = reply.headers.get("content-md5")
    arrived = base64.b64encode(hashlib.md5(reply.body, usedforsecurity=False).digest()).decode()
    if stored is not None and stored != arrived:
        raise Later(f"{without_query(url)} came damaged: its MD5 is {arrived}, not {stored}")

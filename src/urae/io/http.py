"""One HTTP request, with the questions that matter to somebody who pays: was it sent, and is the answer whole?

The standard library's client, so that no extra package is needed; it honours HTTPS_PROXY and its like. A deadline
holds for the whole answer, header and body, a limit for its length, and redirections are followed only within the
origin that was asked: elsewhere they would carry a key, a prompt or a picture to somebody else.
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import json
import math
import re
import socket
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import partial
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any
from urllib.parse import SplitResult, urlsplit

from urae.errors import BadFile, UraeError
from urae.io.texts import parse_json_object

__all__ = [
    "Answer",
    "BadAddress",
    "NoAnswer",
    "TooLong",
    "check_public",
    "download",
    "exchange",
    "seconds_to_wait",
    "without_query",
]

MOST_BYTES = 512 * 2**20
"""Of one answer; an image of 8192 x 8192 px in 16 bits has less."""
LONGEST_WAIT = 600.0
"""Seconds that a server may ask us to wait."""
CHUNK = 2**16
NEVER_SENT = (ConnectionRefusedError, socket.gaierror, ssl.SSLCertVerificationError)
PORTS = {"http": 80, "https": 443}


class NoAnswer(UraeError):
    """No whole answer came; `sent` is whether the server may have got the request."""

    def __init__(self, reason: str, *, sent: bool) -> None:
        super().__init__(reason)
        self.sent = sent


class TooLong(NoAnswer):
    """The answer is longer than the limit."""


class BadAddress(UraeError):
    """An address that is not asked: not HTTP, in another origin than the server that names it, or not public."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a server answered."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes

    def json(self) -> dict[str, Any]:
        """The body's JSON object, empty where it is none."""
        try:
            return parse_json_object(self.body, name="the answer")
        except BadFile:
            return {}

    @property
    def text(self) -> str:
        """The start of the body, in one line."""
        return " ".join(self.body[:2000].decode(errors="replace").split())[:200]


def exchange(
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    body: Mapping[str, Any] | None = None,
    timeout: float,
    limit: int = MOST_BYTES,
    follow: bool = False,
) -> Answer:
    """POST `body` as JSON, or GET where there is none; any status is an answer. timeout: seconds, for all of it; limit:
    bytes of the answer's body; follow: go where a redirection leads within the same origin.

    Raises `NoAnswer` where no whole answer comes, `TooLong`, and `BadAddress`.
    """
    request = _request(url, headers or {}, body)
    watch = _Watch(timeout)
    try:
        with watch, _opener(watch, follow).open(request, timeout=timeout) as response:
            return Answer(
                status=response.status,
                headers={name.lower(): value for name, value in response.headers.items()},
                body=_read(response, watch, limit),
            )
    except _Long as error:
        raise TooLong(
            f"the answer from {without_query(url)} is longer than {limit} bytes", sent=True
        ) from error
    except (OSError, HTTPException, ValueError) as error:
        # ValueError: a redirection to what is no address. URLError is an OSError.
        reason = getattr(error, "reason", error)
        reason = reason if isinstance(reason, Exception) else error  # of a redirection, which is text
        said = "the answer takes too long" if watch.over else f"{type(reason).__name__}: {reason}"
        never_sent = isinstance(reason, NEVER_SENT)
        raise NoAnswer(f"no whole answer from {without_query(url)} ({said})", sent=not never_sent) from None


def download(url: str, *, timeout: float) -> Answer:
    """GET a file, any status being an answer; one that differs from the MD5 that came with it is a `NoAnswer`. Raises
    as `exchange` does."""
    answer = exchange(url, timeout=timeout, follow=True)
    # Object stores send the MD5 of what they hold: a JPEG with a wrong byte decodes, to another picture.
    stored = answer.headers.get("content-md5")
    arrived = base64.b64encode(hashlib.md5(answer.body, usedforsecurity=False).digest()).decode()
    if answer.status == 200 and stored is not None and stored != arrived:
        raise NoAnswer(f"{without_query(url)} came damaged: its MD5 is {arrived}, not {stored}", sent=True)
    return answer


def seconds_to_wait(headers: Mapping[str, str], *, at_most: float = LONGEST_WAIT) -> float:
    """What `Retry-After` asks for, as seconds or as a date, within [0, at_most]; 0 where it is not there or says
    nothing. Names in lower case."""
    value = headers.get("retry-after", "0")
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            return 0.0
    return 0.0 if math.isnan(seconds) else min(max(seconds, 0.0), at_most)


def without_query(url: str) -> str:
    """An address fit to be shown: signed ones carry their signature in the query, others a password."""
    return re.sub(r"//[^/@]*@", "//", re.split(r"[?#]", url, maxsplit=1)[0])


def check_public(url: str, *, loopback: bool = False) -> None:
    """Raise `BadAddress` unless an address that a stranger names leads to the public network: not into the local one,
    nor to this machine, but with `loopback`. Names are resolved."""
    parts = _split(url)
    try:
        port = parts.port or PORTS[parts.scheme]
        found = {entry[4][0] for entry in socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)}
    except (OSError, ValueError) as error:
        raise BadAddress(f"{without_query(url)} leads nowhere ({error})") from error
    for address in sorted(map(str, found)):
        place = _place(address)
        if not (place.is_global and not place.is_multicast) and not (loopback and place.is_loopback):
            raise BadAddress(f"{without_query(url)} leads into a private network ({address})")


def _place(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """An IPv4 address that is written as IPv6 is the one that it stands for."""
    place = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(place, ipaddress.IPv4Address):
        return place
    translated = ipaddress.IPv4Address(int(place) & 0xFFFFFFFF) if place in TRANSLATED else None
    return place.ipv4_mapped or place.sixtofour or translated or place


TRANSLATED = ipaddress.ip_network("64:ff9b::/96")


# --- the request -------------------------------------------------------------------------------------------------


def _request(url: str, headers: Mapping[str, str], body: Mapping[str, Any] | None) -> urllib.request.Request:
    _split(url)
    for name, value in headers.items():
        if not re.fullmatch(r"[ -~\xa0-\xff\t]*", value):
            # http.client would show the value, and a key in it.
            raise ValueError(f"the header {name} holds a line break or no Latin letters: check the key")
    data = None if body is None else json.dumps(body).encode()
    return urllib.request.Request(url, data=data, headers={"Content-Type": "application/json", **headers})


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        usable = (
            parts.scheme in PORTS and parts.hostname and url.isascii() and not re.search(r"[\0- \x7f]", url)
        )
        parts.port  # noqa: B018  raises for a port that is no number
    except ValueError:
        usable = False
    if not usable:
        raise BadAddress(f"the server names an address that is not HTTP: {without_query(url)}")
    return parts


def _origin(url: str) -> tuple[str, str | None, int]:
    parts = _split(url)
    return parts.scheme, parts.hostname, parts.port or PORTS[parts.scheme]


def _opener(watch: _Watch, follow: bool) -> urllib.request.OpenerDirector:
    return urllib.request.build_opener(_AnyStatus(follow), _SameOrigin(), _Watched(watch))


class _AnyStatus(urllib.request.HTTPErrorProcessor):
    """Hands every answer on; redirections are followed only if `follow`."""

    def __init__(self, follow: bool) -> None:
        self.follow = follow

    def http_response(self, request: Any, response: Any) -> Any:
        moved = self.follow and 300 <= response.status < 400
        return super().http_response(request, response) if moved else response

    https_response = http_response


class _SameOrigin(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if _origin(newurl) != _origin(req.full_url):
            asked, named = without_query(req.full_url), without_query(newurl)
            raise BadAddress(f"{asked} leads to another server, {named}, which is not asked")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class _Watched(urllib.request.HTTPHandler, urllib.request.HTTPSHandler):
    def __init__(self, watch: _Watch) -> None:
        super().__init__()
        self.watch = watch

    def http_open(self, req: Any) -> Any:
        return self.do_open(partial(_connection, HTTPConnection, self.watch), req)

    def https_open(self, req: Any) -> Any:
        return self.do_open(partial(_connection, HTTPSConnection, self.watch), req)


# --- the answer --------------------------------------------------------------------------------------------------


class _Long(Exception):
    """The body is longer than the limit."""


class _Watch:
    """Cuts the connection at the deadline. The socket's own timeout begins anew with each byte, and a server that
    sends one a second is waited for without end."""

    def __init__(self, timeout: float) -> None:
        self.deadline = time.monotonic() + timeout
        self.socket: socket.socket | None = None
        self.timer = threading.Timer(timeout, self._cut)
        self.timer.daemon = True

    def __enter__(self) -> None:
        self.timer.start()

    def __exit__(self, *error: object) -> None:
        self.timer.cancel()

    @property
    def over(self) -> bool:
        return time.monotonic() >= self.deadline

    def check(self) -> None:
        if self.over:
            raise TimeoutError("the answer takes too long")

    def _cut(self) -> None:
        if self.socket is not None:
            with suppress(OSError):  # of a connection that is closed already
                # Not SSLSocket's own, which another thread's reading must not meet half done.
                socket.socket.shutdown(self.socket, socket.SHUT_RDWR)


def _connection(kind: type[HTTPConnection], watch: _Watch, host: str, **options: Any) -> HTTPConnection:
    class Connection(kind):  # type: ignore[misc, valid-type]
        def connect(self) -> None:
            super().connect()
            watch.socket = self.sock
            watch.check()  # The watch may have looked just before.

    return Connection(host, **options)


def _read(response: Any, watch: _Watch, limit: int) -> bytes:
    announced = response.headers.get("Content-Length")
    if announced is not None and not re.fullmatch("[0-9]{1,18}", announced):
        raise HTTPException(f"its length is announced as {announced[:40]!r}")
    if announced is not None and int(announced) > limit:
        raise _Long
    pieces, length = [], 0
    while piece := response.read1(CHUNK):
        pieces.append(piece)
        length += len(piece)
        if length > limit:
            raise _Long
        watch.check()
    watch.check()  # A connection that was cut looks like one that has ended.
    if announced is not None and length != int(announced):
        raise OSError(f"{length} bytes came instead of {announced}")
    return b"".join(pieces)

"""What stands before a web site of ours, the study's and the drawing page's.

A POST must be of a kind and a size that the site's own pages send, and come from them (Origin, beside a
SameSite=Strict cookie). Every answer carries a policy under which a page can load and send nothing but to and from
this site.
"""

from __future__ import annotations

from collections.abc import Mapping

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Guard"]

MAX_JSON = 2048
"""Bytes; a vote has some 120."""
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; "
    "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


class Guard:
    """Refuses what no page of ours sends, and puts the policy on every answer, errors included.

    `url` is the site's own address, `bodies` what may be posted: content type -> bytes at most.
    """

    def __init__(self, app: ASGIApp, url: str, *, bodies: Mapping[str, int] | None = None) -> None:
        self.app, self.url, self.bodies = app, url, bodies or {"application/json": MAX_JSON}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        refusal = self._refusal(Headers(scope=scope)) if scope["method"] == "POST" else None
        app = JSONResponse({"detail": refusal[1]}, refusal[0]) if refusal else self.app
        await app(scope, receive, send_guarded)

    def _refusal(self, headers: Headers) -> tuple[int, str] | None:
        if headers.get("origin") != self.url:
            return 403, f"only pages of {self.url} may send this"
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind not in self.bodies:
            return 415, f"expected {' or '.join(self.bodies)}"
        length = headers.get("content-length", "")
        if not (length.isascii() and length.isdigit()):
            return 411, "expected a length"
        most = self.bodies[kind]
        return (413, f"expected at most {most} bytes") if int(length) > most else None

"""The web site of a study, for people who were invited and for nobody else.

What a browser may ask for is looked up, never built from the request: pictures by their opaque name, ballots by
their place in the rater's own list. `Guard` stands before every route: a POST must be JSON, small, and come from
the site's own pages (Origin, beside a SameSite=Strict cookie), and every answer carries a policy under which a page
can load and send nothing but to and from this site.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.resources import files
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, RedirectResponse, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.types import ASGIApp

from urae.pages import html_page
from urae.pages.guard import Guard
from urae.study.ballots import BallotBox, Rater, VoteRefused
from urae.study.manifest import Study

__all__ = ["make_site"]

COOKIE = "urae_rater"
COOKIE_SECONDS = 180 * 24 * 3600
STATIC = {"study.css": "text/css", "study.js": "text/javascript", "icon.svg": "image/svg+xml"}
FOREVER = {"Cache-Control": "private, max-age=31536000, immutable"}
STRANGER = "This page needs your invitation: open the link that you were given."


class Token(BaseModel):
    """What the start page sends."""

    model_config = ConfigDict(extra="forbid", strict=True)
    token: str = Field(max_length=64)


class Choice(BaseModel):
    """What a ballot sends."""

    model_config = ConfigDict(extra="forbid", strict=True)
    position: int = Field(ge=1, le=1_000_000)
    aspect: str = Field(max_length=64)
    picture: str = Field(max_length=64)
    zoomed: bool


def make_site(study: Study, box: BallotBox, *, url: str) -> ASGIApp:
    """The site as an ASGI application; `url` is the address at which raters reach it, such as https://host:8000."""
    site = _Site(study, box, secure=url.startswith("https://"))
    # Without the pages that describe an API: there is none for strangers.
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    for path, page in site.pages.items():
        app.add_api_route(path, page, methods=["GET"], response_model=None)
    for path, action in site.actions.items():
        app.add_api_route(path, action, methods=["POST"], response_model=None)
    for kind in (StarletteHTTPException, RequestValidationError, Exception):
        app.add_exception_handler(kind, site.failed)
    return Guard(app, url)


class _Site:
    def __init__(self, study: Study, box: BallotBox, *, secure: bool) -> None:
        self.study, self.box, self.secure = study, box, secure
        folder = files("urae.study") / "static"
        self.static = {name: (folder / name).read_bytes() for name in STATIC}
        self.pages: dict[str, Callable[..., Response]] = {
            "/": self.home,
            "/join/{token}": self.invitation,
            "/ballot/{position}": self.ballot,
            "/finish": self.finish,
            "/picture/{name}": self.picture,
            "/preview/{name}": self.preview,
            "/static/{name}": self.asset,
        }
        self.actions: dict[str, Callable[..., Response]] = {
            "/join": self.join,
            "/vote": self.vote,
            "/submit": self.submit,
        }

    def home(self, request: Request) -> Response:
        """Where the rater left off."""
        return RedirectResponse(self._next(self._rater(request)), 303)

    def invitation(self, token: str) -> Response:
        """The page behind an invitation's link. Opening it changes nothing, as mail programs open links too."""
        if not (rater := self.box.rater(token)):
            raise HTTPException(404, "This invitation is not known. Is the link complete?")
        return self._page("join.html.j2", token=token, rater=rater)

    def ballot(self, request: Request, position: int) -> Response:
        """One set of pictures with its questions."""
        rater = self._rater(request)
        if rater.submitted:
            return RedirectResponse("/finish", 303)
        try:
            ballot = self.box.ballot(rater, position)
        except LookupError as error:
            raise HTTPException(404, "There is no such page.") from error
        return self._page(
            "ballot.html.j2",
            ballot=ballot,
            item=self.study.item[ballot.item],
            total=len(self.study.items),
            num_open=len(self.box.open_positions(rater)),
        )

    def finish(self, request: Request) -> Response:
        """What is left to do, or thanks."""
        rater = self._rater(request)
        return self._page("finish.html.j2", rater=rater, open_positions=self.box.open_positions(rater))

    def picture(self, request: Request, name: str) -> Response:
        """Native pixels."""
        return self._file(request, name, self.study.pictures)

    def preview(self, request: Request, name: str) -> Response:
        """The reduced picture."""
        return self._file(request, name, self.study.previews)

    def asset(self, name: str) -> Response:
        """Style, script and icon."""
        if name not in STATIC:
            raise HTTPException(404, "There is no such page.")
        return Response(self.static[name], media_type=STATIC[name], headers={"Cache-Control": "no-cache"})

    def join(self, given: Token) -> Response:
        """Begin, or go on, with an invitation."""
        if not (rater := self.box.rater(given.token)):
            raise HTTPException(403, "This invitation is not known.")
        self.box.join(rater)
        response = JSONResponse({"next": self._next(rater)})
        response.set_cookie(
            COOKIE,
            given.token,
            max_age=COOKIE_SECONDS,
            httponly=True,
            samesite="strict",
            secure=self.secure,
        )
        return response

    def vote(self, request: Request, choice: Choice) -> Response:
        """Answered only when the vote is on the disk."""
        rater = self._rater(request)
        try:
            self.box.vote(rater, choice.position, choice.aspect, choice.picture, zoomed=choice.zoomed)
        except LookupError as error:
            raise HTTPException(404, "There is no such ballot.") from error
        except VoteRefused as error:
            raise HTTPException(409, str(error)) from error
        return JSONResponse({"open": self.box.open_positions(rater)})

    def submit(self, request: Request) -> Response:
        """Make the votes final."""
        try:
            self.box.submit(self._rater(request))
        except VoteRefused as error:
            raise HTTPException(409, str(error)) from error
        return JSONResponse({"next": "/finish"})

    async def failed(self, request: Request, error: Any) -> Response:
        """A sentence: as JSON to scripts, as a page to people."""
        status, detail = getattr(error, "status_code", 500), getattr(error, "detail", "The server failed.")
        if isinstance(error, RequestValidationError):
            status, detail = 422, "That is nothing that a page of this study asks for."
        if request.method == "POST":
            return JSONResponse({"detail": detail}, status)
        return self._page("message.html.j2", status=status, message=detail)

    def _rater(self, request: Request) -> Rater:
        if not (rater := self.box.rater(request.cookies.get(COOKIE, ""))):
            raise HTTPException(401, STRANGER)
        return rater

    def _next(self, rater: Rater) -> str:
        positions = self.box.open_positions(rater)
        return f"/ballot/{positions[0]}" if positions and not rater.submitted else "/finish"

    def _file(self, request: Request, name: str, known: Mapping[str, Any]) -> Response:
        self._rater(request)
        if name not in known:
            raise HTTPException(404, "There is no such picture.")
        # Otherwise these say when the file was written, and with it which candidate came first.
        neutral = {"Last-Modified": "Thu, 01 Jan 1970 00:00:00 GMT", "ETag": f'"{name}"'}
        return FileResponse(known[name], headers={**FOREVER, **neutral})

    def _page(self, template: str, *, status: int = 200, **values: Any) -> Response:
        html = html_page("urae.study", template, study=self.study, **values)
        return Response(html, status, media_type="text/html")

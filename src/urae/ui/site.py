"""The pages. What a browser asks for is looked up, never built from the request: pictures by their name in the folder,
runs by theirs. Whoever has not come by the link with the token sees nothing."""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import AsyncIterator, Callable
from importlib.resources import files
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, RedirectResponse, Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from urae import adapters
from urae.generation.methods import METHODS
from urae.io import sentence_of
from urae.pages import html_page
from urae.pages.guard import Guard
from urae.ui.asking import fitted, model_of, presets, request_of
from urae.ui.gallery import Gallery
from urae.ui.jobs import DrawingJob, JobBook
from urae.ui.runs import Runs
from urae.ui.worker import Worker

__all__ = ["make_site"]

COOKIE = "urae_ui"
STATIC = {"ui.css": "text/css", "ui.js": "text/javascript", "icon.svg": "image/svg+xml"}
BODIES = {"application/json": 16_384, "application/octet-stream": 256 * 2**20}
"""What pages post: forms, and pictures of the user's own."""
RECENT = 60
"""Jobs and pictures that a page lists."""
TICK = 0.2
"""Seconds between looks for news."""
STRANGER = "Open this page with the link that `urae ui` printed."


class Form(BaseModel):
    """A form."""

    model_config = ConfigDict(extra="forbid", strict=True)
    fields: dict[str, str] = Field(max_length=20)


class Named(BaseModel):
    """A job or a run."""

    model_config = ConfigDict(extra="forbid", strict=True)
    name: str = Field(max_length=1024)


def make_site(
    book: JobBook, worker: Worker, gallery: Gallery, runs: Runs, *, token: str, url: str
) -> ASGIApp:
    """The site as an ASGI application; `url` is its own address, such as http://127.0.0.1:8100."""
    site = _Pages(book, worker, gallery, runs)
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    for path, page in site.pages.items():
        app.add_api_route(path, page, methods=["GET"], response_model=None)
    for path, action in site.actions.items():
        app.add_api_route(path, action, methods=["POST"], response_model=None)
    for kind in (StarletteHTTPException, RequestValidationError, LookupError, Exception):
        app.add_exception_handler(kind, site.failed)
    return Guard(_Known(app, token), url, bodies=BODIES)


class _Known:
    """Lets in whoever has the cookie, which the link with the token sets."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self.app, self.token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        request = Request(scope)
        if self._is(request.cookies.get(COOKIE, "")):
            return await self.app(scope, receive, send)
        if (
            scope["path"] == "/"
            and scope["method"] == "GET"
            and self._is(request.query_params.get("token", ""))
        ):
            answer: Response = RedirectResponse("/", 303)
            answer.set_cookie(COOKIE, self.token, httponly=True, samesite="strict")
        else:
            answer = _page("message.html.j2", status=403, title="No access", message=STRANGER)
        await answer(scope, receive, send)

    def _is(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), self.token.encode())


class _Pages:
    def __init__(self, book: JobBook, worker: Worker, gallery: Gallery, runs: Runs) -> None:
        self.book, self.worker, self.gallery, self.runs = book, worker, gallery, runs
        folder = files("urae.ui") / "static"
        self.static = {name: (folder / name).read_bytes() for name in STATIC}
        self.pages: dict[str, Callable[..., Any]] = {
            "/": self.draw_page,
            "/jobs": self.jobs_page,
            "/job/{id}": self.job_page,
            "/look": self.look_page,
            "/runs": self.runs_page,
            "/run/{name:path}": self.run_page,
            "/picture/{name}": self.picture,
            "/thumb/{name}": self.thumb,
            "/preview/{id}": self.preview,
            "/sample/{picture}/{name:path}": self.sample,
            "/events": self.events,
            "/static/{name}": self.asset,
        }
        self.actions: dict[str, Callable[..., Any]] = {
            "/draw": self.draw,
            "/upload": self.upload,
            "/cancel": self.cancel,
            "/again": self.again,
            "/run-stop": self.run_stop,
            "/run-go": self.run_go,
        }

    # --- pages

    def draw_page(self, like: str = "", native: str = "") -> Response:
        """The form, and what was made last."""
        told = self.gallery.told(like) if like else {}
        info = self.worker.info
        known = "native" in info
        return _page(
            "draw.html.j2",
            title="Draw",
            info=info,
            presets=presets(info["native"], info["multiple"]) if known else {},
            told=told,
            native=native and self.gallery.path(native).name,
            methods=list(METHODS),
            recent=self.gallery.newest(12),
            adapters=self._adapters(),
        )

    def jobs_page(self) -> Response:
        """Queue and history."""
        return _page("jobs.html.j2", title="Queue and history", jobs=self.book.all()[:RECENT])

    def job_page(self, id: str) -> Response:
        """One job."""
        return _page("job.html.j2", title="Job", job=self._job(id), larger=self._larger(self._job(id)))

    def look_page(self, p: str = "") -> Response:
        """Pictures side by side; `p` holds their names with commas."""
        names = [name for name in p.split(",") if name][:4]
        shown = [(name, self.gallery.size(name), self.gallery.told(name)) for name in names]
        return _page("look.html.j2", title="Look", shown=shown, others=self.gallery.newest(RECENT))

    def runs_page(self) -> Response:
        """All training runs."""
        rows = [
            (name, self.runs.facts(name), self.runs.is_running(name)) for name in self.runs.names()[:RECENT]
        ]
        return _page("runs.html.j2", title="Runs", rows=rows, folder=self.runs.folder)

    def run_page(self, name: str) -> Response:
        """One training run."""
        facts, running = self.runs.facts(name), self.runs.is_running(name)
        return _page("run.html.j2", title=name, name=name, facts=facts, running=running)

    def picture(self, name: str) -> Response:
        """Native pixels, metadata included."""
        return FileResponse(
            self.gallery.path(name), media_type="image/png", filename=name, content_disposition_type="inline"
        )

    def thumb(self, name: str) -> Response:
        """Small."""
        return FileResponse(self.gallery.thumb(name), media_type="image/jpeg")

    def preview(self, id: str) -> Response:
        """Of the job that is being drawn."""
        return Response(self.book.preview[id], media_type="image/png")

    def sample(self, picture: str, name: str) -> Response:
        """A run's sample."""
        return FileResponse(self.runs.sample(name, picture), media_type="image/png")

    def asset(self, name: str) -> Response:
        """Style, script and icon."""
        return Response(self.static[name], media_type=STATIC[name], headers={"Cache-Control": "no-cache"})

    async def events(self, request: Request) -> Response:
        """News of jobs as they come, as server-sent events."""

        async def told() -> AsyncIterator[str]:
            seen = -1
            while not await request.is_disconnected():
                if self.book.version != seen:
                    seen = self.book.version
                    news = {
                        "model": self.worker.info,
                        "jobs": [_news(job) for job in self.book.all()[:RECENT]],
                    }
                    yield f"data: {json.dumps(news)}\n\n"
                await asyncio.sleep(TICK)

        return StreamingResponse(told(), media_type="text/event-stream")

    # --- actions

    def draw(self, form: Form) -> Response:
        """Put a job into the queue."""
        asked = dict(form.fields)
        try:
            native = asked.get("native", "")
            path = self.gallery.path(native) if native else None
            if native and (larger := asked.pop("larger", "")):
                asked["size"] = self._larger_size(native, larger)
            request_of(asked, path)
            model_of(asked, self.worker.model)
        except ValueError as error:
            raise HTTPException(422, str(error)) from error
        job = self.book.add(asked)
        self.worker.wake()
        return JSONResponse({"next": f"/job/{job.id}"})

    async def upload(self, request: Request) -> Response:
        """Take in a picture of the user's own."""
        content = await request.body()
        try:
            name = await asyncio.to_thread(self.gallery.keep, content)
        except Exception as error:
            raise HTTPException(422, sentence_of(error) or "that picture could not be read") from error
        return JSONResponse({"next": f"/?native={name}"})

    def cancel(self, given: Named) -> Response:
        """Stop a job."""
        self.worker.cancel(self._job(given.name).id)
        return JSONResponse({})

    def again(self, given: Named) -> Response:
        """Put a job that stopped or failed back into the queue."""
        job = self._job(given.name)
        if not job.is_over:
            raise HTTPException(409, "the job is not over")
        self.book.change(job.id, state="queued", message="", step=0)
        self.worker.wake()
        return JSONResponse({"next": f"/job/{job.id}"})

    def run_stop(self, given: Named) -> Response:
        """Ask a run to end after its step."""
        return self._to_run(self.runs.stop, given.name)

    def run_go(self, given: Named) -> Response:
        """Go on with a run."""
        return self._to_run(self.runs.go_on, given.name)

    async def failed(self, request: Request, error: Any) -> Response:
        """A sentence: as JSON to scripts, as a page to people."""
        status, detail = getattr(error, "status_code", 500), getattr(error, "detail", "The server failed.")
        if isinstance(error, LookupError):
            status, detail = 404, "There is nothing of that name here."
        elif isinstance(error, RequestValidationError):
            status, detail = 422, "The pages of this site send no such request."
        elif said := (sentence_of(error) if status == 500 else None):
            detail = said
        if request.method == "POST":
            return JSONResponse({"detail": detail}, status)
        return _page("message.html.j2", status=status, title="Sorry", message=detail)

    # --- parts

    def _job(self, id: str) -> DrawingJob:
        return self.book[id]

    def _to_run(self, act: Callable[[str], None], name: str) -> Response:
        try:
            act(name)
        except ValueError as error:
            raise HTTPException(409, str(error)) from error
        return JSONResponse({})

    def _adapters(self) -> list[str]:
        """Files that runs have made, and what ships with the miniature, to choose from."""
        shipped = adapters.SHIPPED if self.worker.model.model == "mini" else ()
        made = [self.runs.folder / name / "adapter.safetensors" for name in self.runs.names()]
        return [*shipped, *(str(path) for path in made if path.is_file())]

    def _larger(self, job: DrawingJob) -> list[str]:
        """How much larger its pictures can be drawn: none where they are large already."""
        native = self.worker.info.get("native")
        if not (native and job.pictures):
            return []
        width, height = self.gallery.size(job.pictures[0])
        return ["2x", "4x"] if width * height <= (1.1 * native) ** 2 else []

    def _larger_size(self, name: str, larger: str) -> str:
        times = {"2x": 2, "4x": 4}.get(larger)
        if times is None:
            raise ValueError(f"larger is {larger!r}: expected 2x or 4x")
        if "native" not in self.worker.info:
            raise ValueError("the model is not open yet: wait a moment")
        side, multiple = self.worker.info["native"] * times, self.worker.info["multiple"]
        return "{}x{}".format(*fitted(self.gallery.size(name), side, multiple))


def _page(template: str, *, status: int = 200, **values: Any) -> Response:
    return Response(html_page("urae.ui", template, **values), status, media_type="text/html")


def _news(job: DrawingJob) -> dict[str, Any]:
    """What pages show of a job."""
    left = job.seconds_left
    return {
        "id": job.id,
        "state": job.state,
        "step": job.step,
        "steps": job.num_steps,
        "left": None if left is None else round(left),
        "previews": job.previews,
        "pictures": list(job.pictures),
        "message": job.message,
    }

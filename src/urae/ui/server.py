"""Running the page: one server, one drawing process, one folder."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from urae.errors import MissingExtra
from urae.generation.asking import ModelRequest
from urae.io import check_can_write, locked

__all__ = ["make_server", "serve"]

KEPT = ".ui"
"""Folder in the pictures' own that keeps jobs, small pictures and the user's own pictures."""


def serve(
    model: ModelRequest, out: Path, runs: Path, *, port: int = 8100, say: Callable[[str], None] = print
) -> None:
    """Serve the page on this machine alone until interrupted. `out` keeps the pictures, `runs` is where training runs
    are. Raises `MissingExtra` without fastapi and `UraeError` where another page uses the folder."""
    with make_server(model, out, runs, port=port) as (server, link):
        say(f"open {link}")
        say("Ctrl-C ends it; finished pictures and the queue are kept")
        server.run()


@contextmanager
def make_server(model: ModelRequest, out: Path, runs: Path, *, port: int) -> Iterator[tuple[Any, str]]:
    """A `uvicorn.Server`, not yet running, and the link that opens its page; the drawing process ends with it."""
    uvicorn = _uvicorn()
    from urae.ui.gallery import Gallery
    from urae.ui.jobs import JobBook
    from urae.ui.runs import Runs
    from urae.ui.site import make_site
    from urae.ui.worker import Worker

    check_can_write(out, folder=True)
    kept = out / KEPT
    with locked(kept / "lock", what=f"the page of {out}"):
        for folder in ("jobs", "own", "thumbs"):
            (kept / folder).mkdir(exist_ok=True)
        book, token = JobBook(kept / "jobs"), secrets.token_urlsafe(24)
        gallery = Gallery(out, kept)
        worker = Worker(book, model, gallery)
        url = f"http://127.0.0.1:{port}"
        site = make_site(book, worker, gallery, Runs(runs), token=token, url=url)
        config = uvicorn.Config(
            site,
            host="127.0.0.1",
            port=port,
            access_log=False,
            log_level="warning",
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=1,  # pages that listen for news never hang up
        )
        try:
            yield uvicorn.Server(config), f"{url}/?token={token}"
        finally:
            worker.close()


def _uvicorn() -> ModuleType:
    try:
        import fastapi  # noqa: F401
        import uvicorn
    except ImportError as error:
        raise MissingExtra("the page needs fastapi and uvicorn: pip install 'urae[ui]'") from error
    return uvicorn

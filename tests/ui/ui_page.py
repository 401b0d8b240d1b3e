"""A page that is being served, with the real drawing process on the miniature."""

from __future__ import annotations

import http.client
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from urae.generation.asking import ModelRequest
from urae.ui.server import make_server

PATIENCE = 300
"""Seconds; a test machine may be busy."""


@dataclass
class Page:
    """A page, and a client that came by its link."""

    link: str
    out: Path
    cookie: str = field(default="")

    @property
    def url(self) -> str:
        return self.link.partition("/?")[0]

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Any:
        connection = http.client.HTTPConnection(self.url.removeprefix("http://"), timeout=PATIENCE)
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, {"Cookie": self.cookie, **sent})
        answer = connection.getresponse()
        answer.text = answer.read().decode("utf-8", "replace")
        return answer

    def enter(self) -> None:
        answer = self.ask("GET", self.link.removeprefix(self.url))
        self.cookie = answer.headers["set-cookie"].partition(";")[0]

    def get(self, path: str) -> Any:
        return self.ask("GET", path)

    def post(self, path: str, given: Any, **headers: str) -> Any:
        sent = {"Origin": self.url, "Content_Type": "application/json", **headers}
        body = given if isinstance(given, bytes) else json.dumps(given).encode()
        return self.ask("POST", path, body, **sent)

    def draw(self, **fields: str) -> str:
        """The id of a new job."""
        answer = self.post("/draw", {"fields": fields})
        assert answer.status == 200, answer.text
        return json.loads(answer.text)["next"].removeprefix("/job/")

    def state(self, job: str) -> str:
        return re.search(r'data-state="(\w+)"', self.get(f"/job/{job}").text)[1]

    def wait(self, job: str, *states: str) -> str:
        wait_for(lambda: self.state(job) in (states or ("done", "stopped", "failed")))
        return self.state(job)


def wait_for(condition: Any) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


@contextmanager
def serving(folder: Path) -> Iterator[Page]:
    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    with make_server(ModelRequest(), folder / "images", folder / "runs", port=port) as (server, link):
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            wait_for(lambda: server.started)
            page = Page(link, folder / "images")
            page.enter()
            wait_for(lambda: 'id="draw"' in page.get("/").text)
            yield page
        finally:
            server.should_exit = True
            thread.join()
            listening.close()

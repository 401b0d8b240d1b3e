"""A server that speaks chat completions with pictures, on a free local port; its judge is what a test needs.

It really decodes the pictures. A behaviour gets the request and says what to do: see `Asked` and `answer`.
"""

from __future__ import annotations

import base64
import io
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from PIL import Image, ImageStat


@dataclass
class Asked:
    """One request, as the server sees it."""

    text: str
    labels: list[str]
    pictures: list[Image.Image]
    body: dict[str, Any]
    headers: dict[str, str]
    """Names in lower case."""
    number: int
    """Requests before this one."""

    @property
    def pair(self) -> bool:
        return self.labels[0].startswith("Image 1")

    def brightness(self, place: int = 1) -> float:
        """Mean grey level of image `place`, in [0, 255]."""
        of = [
            p
            for label, p in zip(self.labels, self.pictures, strict=True)
            if not self.pair or label.startswith(f"Image {place}")
        ]
        return sum(ImageStat.Stat(p.convert("L")).mean[0] for p in of) / len(of)


@dataclass
class Reaction:
    """What the server does: a status with a body, after a pause, with headers."""

    body: str
    status: int = 200
    seconds: float = 0.0
    headers: dict[str, str] = field(default_factory=dict)


def completion(content: str | None, **message: Any) -> Reaction:
    choice = {
        "index": 0,
        "finish_reason": "stop",
        "message": {"role": "assistant", "content": content, **message},
    }
    body = {
        "id": "x",
        "object": "chat.completion",
        "created": 0,
        "model": "toy-2026-11-01",
        "choices": [choice],
    }
    counted = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
    return Reaction(json.dumps({**body, "system_fingerprint": "fp_toy", "usage": counted}))


def failure(
    status: int, message: str = "no", *, code: str = "", headers: dict[str, str] | None = None
) -> Reaction:
    return Reaction(json.dumps({"error": {"message": message, "code": code}}), status, headers=headers or {})


def verdict(winner: str) -> Reaction:
    return completion(json.dumps({"reason": "so it is", "winner": winner}))


def score(value: float) -> Reaction:
    return completion(json.dumps({"reason": "so it is", "score": value}))


Behaviour = Callable[[Asked], Reaction]


def always_first(asked: Asked) -> Reaction:
    return verdict("first") if asked.pair else score(50)


def oracle(asked: Asked) -> Reaction:
    """Prefers the brighter picture."""
    if not asked.pair:
        return score(round(asked.brightness() / 2.55, 1))
    first, second = asked.brightness(1), asked.brightness(2)
    return verdict("tie" if abs(first - second) < 2 else "first" if first > second else "second")


@dataclass
class Running:
    url: str
    asked: list[Asked]
    most_at_once: int = 0


@contextmanager
def running(behaviour: Behaviour) -> Iterator[Running]:
    """The server in a thread, until the end of the block."""
    state, lock, busy = Running(url="", asked=[]), threading.Lock(), [0]

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            assert self.path == "/v1/chat/completions"
            with lock:
                asked = _read(
                    body, {name.lower(): value for name, value in self.headers.items()}, len(state.asked)
                )
                state.asked.append(asked)
                busy[0] += 1
                state.most_at_once = max(state.most_at_once, busy[0])
            reaction = behaviour(asked)
            time.sleep(reaction.seconds)
            with lock:
                busy[0] -= 1
            self._send(reaction)

        def _send(self, reaction: Reaction) -> None:
            content = reaction.body.encode()
            try:
                self.send_response(reaction.status)
                for name, value in {"Content-Type": "application/json", **reaction.headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True  # The client has given up or was killed.

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _read(body: dict[str, Any], headers: dict[str, str], number: int) -> Asked:
    parts = body["messages"][0]["content"]
    texts = [part["text"] for part in parts if part["type"] == "text"]
    uris = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
    return Asked(
        text=texts[0],
        labels=[text for text in texts if re.fullmatch(r"Image( \d)?(, crop \d of \d)?:", text)],
        pictures=[_decode(uri) for uri in uris],
        body=body,
        headers=headers,
        number=number,
    )


def _decode(uri: str) -> Image.Image:
    kind, _, content = uri.partition(";base64,")
    picture = Image.open(io.BytesIO(base64.b64decode(content, validate=True)))
    picture.load()
    assert kind == f"data:image/{str(picture.format).lower()}"
    return picture

"""A server that speaks the documented contract of Black Forest Labs' API, on a free local port, and counts orders.

Submit, poll, download from a signed address; no more than `most_tasks` at a time, or 429. What goes wrong is told by
`faults`: for each of "order", "poll" and "download" an iterator with a word for every request, "" for none.
"""

from __future__ import annotations

import io
import itertools
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from PIL import Image

KEY = "bfl-very-secret-key"
COMMON = {"prompt", "safety_tolerance"}
FIELDS = {
    "flux-pro": {"seed", "aspect_ratio", "raw", "output_format", "prompt_upsampling"},
    "flux-2-klein": {"seed", "width", "height", "output_format"},
    "flux-2": {"seed", "width", "height", "output_format", "prompt_upsampling"},
    "flux-3": {"aspect_ratio", "resolution", "grounding"},
}
"""What a model's endpoint takes, by the beginning of its name; others are refused with 422."""


@dataclass
class Task:
    id: str
    body: dict[str, Any]
    image: bytes
    ready: float
    done: bool = False
    tokens: set[str] = field(default_factory=set)
    """Of addresses that are still valid."""

    @property
    def prompt(self) -> str:
        return self.body["prompt"]


@dataclass
class Server:
    url: str = ""
    model: str = "flux-pro-1.1-ultra"
    paint: Callable[[dict[str, Any]], bytes] = lambda body: b""
    """The image of an order; a small one of its own where that is empty."""
    tasks: dict[str, Task] = field(default_factory=dict)
    faults: dict[str, Iterator[str]] = field(default_factory=dict)
    seconds: float = 0.02
    """That a task takes."""
    most_tasks: int = 24
    gate: threading.Event = field(default_factory=threading.Event)
    """Answers that are held wait for it."""
    num_requests: int = 0
    times: list[float] = field(default_factory=list)
    """When orders came, taken or not."""
    refused: list[int] = field(default_factory=list)
    """Statuses of orders that were not taken."""
    most_active: int = 0
    cost: Any = 6
    """Of an order, in credits, as it is answered; None leaves it out."""
    odd: dict[str, Any] = field(default_factory=dict)
    """Comes in place of what the answers say."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def draw(self, name: str, body: dict[str, Any]) -> bytes:
        """The picture that an order gets."""
        return self.paint(body) or picture(name)

    @property
    def orders(self) -> Counter[str]:
        """Orders that were taken, by prompt: what has to be paid."""
        return Counter(task.prompt for task in self.tasks.values())

    def fault(self, kind: str) -> str:
        with self.lock:
            return next(self.faults.setdefault(kind, itertools.repeat("")))

    def fail(self, kind: str, *words: str) -> None:
        """These faults for the next requests of a kind, then none."""
        self.faults[kind] = itertools.chain(words, itertools.repeat(""))

    def take(self, body: dict[str, Any]) -> Task | None:
        """A new task, None where there are too many."""
        with self.lock:
            active = sum(not task.done for task in self.tasks.values())
            if active >= self.most_tasks:
                return None
            self.most_active = max(self.most_active, active + 1)
            name = f"task-{len(self.tasks)}"
            task = Task(
                id=name, body=body, image=self.draw(name, body), ready=time.monotonic() + self.seconds
            )
            self.tasks[name] = task
            return task


def picture(name: str, kind: str = "PNG") -> bytes:
    """A small image, another one for each name."""
    stream = io.BytesIO()
    Image.frombytes("RGB", (48, 32), random.Random(name).randbytes(48 * 32 * 3)).save(stream, kind)
    return stream.getvalue()


def sometimes(seed: int, words: list[str], share: float) -> Iterator[str]:
    """One of the words in a share of the requests."""
    draw = random.Random(seed)
    while True:
        yield draw.choice(words) if draw.random() < share else ""


@contextmanager
def running(kind: type[Server] = Server) -> Iterator[Server]:
    """The server in a thread, until the end of the block."""
    state = kind()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.guarded(lambda: order(self, state, body))

        def do_GET(self) -> None:
            self.guarded(lambda: (poll if self.path.startswith("/v1/") else download)(self, state))

        def guarded(self, answer: Callable[[], None]) -> None:
            state.num_requests += 1
            try:
                answer()
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True  # The client has given up or was killed.

        def send(self, status: int, content: dict[str, Any] | bytes, **headers: Any) -> None:
            body = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            for name, value in {"Content-Length": len(body), **headers}.items():
                self.send_header(name.replace("_", "-"), str(value))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield state
    finally:
        state.gate.set()
        server.shutdown()
        thread.join()
        server.server_close()


def order(handler: Any, state: Server, body: dict[str, Any]) -> None:
    assert handler.path == f"/v1/{state.model}"
    known = next(fields for name, fields in FIELDS.items() if state.model.startswith(name))
    if body.keys() - COMMON - known:
        return handler.send(422, {"detail": f"extra_forbidden: {sorted(body.keys() - COMMON - known)}"})
    state.times.append(time.monotonic())
    fault = state.fault("order")
    status, _, seconds = fault.partition(":")
    if handler.headers["x-key"] != KEY:
        status = "403"
    if status.isdigit():
        state.refused.append(int(status))
        said = {"detail": f"no: {handler.headers['x-key']}"}
        return handler.send(int(status), said, **({"Retry_After": seconds} if seconds else {}))
    task = state.take(body)
    if task is None:
        state.refused.append(429)
        return handler.send(429, {"detail": "too many active tasks"})
    if fault == "taken, then cut off":
        handler.close_connection = True
        return None
    if fault == "taken, then held":
        state.gate.wait(60)
    polling_url = f"{state.url}/v1/get_result?id={task.id}"
    cost = {} if state.cost is None else {"cost": state.cost}
    return handler.send(200, {"id": task.id, "polling_url": polling_url, **cost, **state.odd})


def poll(handler: Any, state: Server) -> None:
    fault = state.fault("poll")
    task = state.tasks.get(handler.path.partition("?id=")[2])
    if handler.headers["x-key"] != KEY:
        return handler.send(403, {"detail": "no"})
    if fault.isdigit():
        return handler.send(int(fault), {"detail": "no"})
    if fault == "unknown" or task is None:
        return handler.send(404, {"id": "", "status": "Task not found", "result": None})
    if fault == "error":
        task.done = True
        return handler.send(200, {"id": task.id, "status": "Error", "result": None})
    if time.monotonic() < task.ready:
        return handler.send(200, {"id": task.id, "status": "Pending", "result": None})
    task.done = True
    for word, status in (("forbidden", "Request Moderated"), ("unsafe", "Content Moderated")):
        if word in task.prompt:
            details = {"Moderation Reasons": ["Derivative Works"]}
            return handler.send(200, {"id": task.id, "status": status, "result": None, "details": details})
    token = f"{len(task.tokens)}"
    task.tokens.add(token)
    sample = f"{state.url}/delivery/{task.id}?sig={token}"
    ready = {"id": task.id, "status": "Ready", "result": {"sample": sample}}
    return handler.send(200, {**ready, **state.odd})


def download(handler: Any, state: Server) -> None:
    assert handler.headers["x-key"] is None, "the key must not leave the API"
    name, _, token = handler.path.removeprefix("/delivery/").partition("?sig=")
    task, fault = state.tasks[name], state.fault("download")
    half = len(task.image) // 2
    if fault == "expired":
        task.tokens.clear()
    if token not in task.tokens:
        return handler.send(403, b"<Error>signature expired</Error>")
    if fault.isdigit():
        return handler.send(int(fault), b"no")
    if fault == "moved":
        return handler.send(302, b"", Location=f"{state.url}{handler.path}")
    if fault == "slow":
        time.sleep(1.0)
    if fault == "cut off":
        handler.close_connection = True
        return handler.send(200, task.image[:half], Content_Length=len(task.image))
    if fault == "short":
        return handler.send(200, task.image[:half])
    if fault == "corrupt":
        flipped = bytes([task.image[half] ^ 0xFF])
        return handler.send(200, task.image[:half] + flipped + task.image[half + 1 :])
    return handler.send(200, task.image)

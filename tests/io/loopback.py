"""A real server on this machine, whose answers are functions of the request."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

React = Callable[[BaseHTTPRequestHandler, bytes], object]


@contextmanager
def serving(react: React) -> Iterator[tuple[str, list[tuple[str, dict[str, str], bytes]]]]:
    """The server's address, and the path, headers (names in lower case) and body of each request."""
    asked: list[tuple[str, dict[str, str], bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            asked.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
            with suppress(BrokenPipeError, ConnectionResetError):  # The client has given up.
                react(self, body)

        do_HEAD = do_POST = do_GET

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads, server.block_on_close = True, False
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def answer(handler: Any, status: int = 200, body: bytes = b"", **headers: str) -> None:
    """Answer in one piece; `headers` by name, "_" for "-"."""
    handler.send_response(status)
    for name, value in ({"Content-Length": str(len(body))} | headers).items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body)


def drip(handler: Any, text: bytes, *, pause: float = 0.05) -> None:
    """Send a byte at a time."""
    for byte in text:
        handler.wfile.write(bytes([byte]))
        handler.wfile.flush()
        time.sleep(pause)

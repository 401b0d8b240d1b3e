"""A server for OpenAI-compatible clients: each POST is answered by a function, each GET with a picture."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from collect_server import picture

Body = dict[str, Any]


@contextmanager
def serving(react: Callable[[Body, int], tuple[int, Body]]) -> Iterator[tuple[str, list[Body]]]:
    """The server's address and the bodies of all POSTs, their path and headers in them under "_path" and "_headers".

    `react(body, number)` gives a status and a body; `number` counts the POSTs before.
    """
    asked: list[Body] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            headers = {name.lower(): value for name, value in self.headers.items()}
            asked.append({**body, "_path": self.path, "_headers": headers})
            status, answer = react(body, len(asked) - 1)
            self.answer(status, json.dumps(answer).encode())

        def do_GET(self) -> None:
            assert "Authorization" not in self.headers, "the key must not leave the API"
            self.answer(200, picture(self.path))

        def answer(self, status: int, content: bytes) -> None:
            try:
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.send_header("Retry-After-Ms", "1")
                self.end_headers()
                self.wfile.write(content)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True  # The client has given up or was killed.

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

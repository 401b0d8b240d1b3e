"""A hub on this machine: as much of its contract as the real client asks for.

Repositories are folders of bytes. `/api/models/NAME/revision/REVISION` describes one, `.../tree/...` lists its files,
and `/NAME/resolve/REVISION/FILE` has them, with the headers that the client checks. A gated one shows its list to
everybody and its files to nobody.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from urllib.parse import unquote, urlsplit

from loopback import serving

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass(frozen=True, kw_only=True)
class Repository:
    files: Mapping[str, bytes]
    gated: bool = False
    lost: Sequence[str] = ()
    """Files that are listed, and not there."""
    seconds: float = 0.0
    """That the body of each file takes."""


@dataclass(kw_only=True)
class Hub:
    address: str
    requests: list[tuple[str, str]] = field(default_factory=list)
    """Method and path of each."""

    def fetched(self, file: str) -> int:
        """How often the bytes of a file were asked for."""
        return sum(method == "GET" and path.endswith(f"/{file}") for method, path in self.requests)


@contextmanager
def hub(repositories: Mapping[str, Repository]) -> Iterator[Hub]:
    made = Hub(address="")

    def react(handler: BaseHTTPRequestHandler, body: bytes) -> None:
        path = unquote(urlsplit(handler.path).path)
        made.requests.append((handler.command, path))
        for name, repository in repositories.items():
            if path.startswith(f"/api/models/{name}"):
                return describe(handler, name, repository, is_tree="/tree/" in path)
            if path.startswith(f"/{name}/resolve/"):
                return give(handler, repository, path.removeprefix(f"/{name}/resolve/").partition("/")[2])
        refuse(handler, 401, "RepoNotFound", "Invalid username or password.")

    with serving(react) as (address, _):
        made.address = address
        yield made


def describe(handler: BaseHTTPRequestHandler, name: str, repository: Repository, *, is_tree: bool) -> None:
    listed = [*repository.files, *repository.lost]
    if is_tree:
        sizes = {file: len(repository.files.get(file, b"")) for file in listed}
        said: object = [
            {"type": "file", "oid": etag(file), "size": sizes[file], "path": file} for file in listed
        ]
    else:
        siblings = [{"rfilename": file} for file in listed]
        said = {"id": name, "sha": COMMIT, "private": False, "gated": "auto" if repository.gated else False}
        said |= {"siblings": siblings, "tags": [], "downloads": 0}
    answer(handler, 200, json.dumps(said).encode(), {"Content-Type": "application/json"})


def give(handler: BaseHTTPRequestHandler, repository: Repository, file: str) -> None:
    if repository.gated:
        said = "Access to model is restricted. You must have access to it and be authenticated to access it."
        return refuse(handler, 401, "GatedRepo", said)
    if file not in repository.files:
        return refuse(handler, 404, "EntryNotFound", "Entry not found")
    if handler.command == "GET":
        time.sleep(repository.seconds)
    answer(handler, 200, repository.files[file], {"ETag": f'"{etag(file)}"', "X-Repo-Commit": COMMIT})


def refuse(handler: BaseHTTPRequestHandler, status: int, code: str, said: str) -> None:
    answer(handler, status, said.encode(), {"X-Error-Code": code, "X-Error-Message": said})


def answer(handler: BaseHTTPRequestHandler, status: int, body: bytes, headers: Mapping[str, str]) -> None:
    handler.send_response(status)
    for name, value in {**headers, "Content-Length": str(len(body))}.items():
        handler.send_header(name, value)
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(body)


def etag(file: str) -> str:
    return hashlib.sha1(file.encode()).hexdigest()

"""Candidates drawn by the miniature, a site on loopback, and a client that can say whatever an attacker would."""

from __future__ import annotations

import http.client
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageFilter, PngImagePlugin

from urae.mini import render, scene
from urae.study.ballots import BallotBox, read_invitations
from urae.study.build import build_study
from urae.study.manifest import Study
from urae.study.server import make_server

NAMES = ("sharp", "blurred", "enlarged")
IDS = [f"scene-{seed}" for seed in range(6)]
HOSTILE = "<script>alert('x')</script>\"'; DROP TABLE votes; -- {{ 7*7 }}"
PROMPTS = {name: scene(seed).caption() for seed, name in enumerate(IDS)} | {IDS[0]: HOSTILE}


def draw(folder: Path, size: int = 96) -> dict[str, Path]:
    """A folder of each candidate, whose files say in their metadata who made them."""
    damage = {
        "sharp": lambda picture: picture,
        "blurred": lambda picture: picture.filter(ImageFilter.GaussianBlur(2)),
        "enlarged": lambda picture: picture.resize((size // 4,) * 2).resize(picture.size),
    }
    for name in NAMES:
        (folder / name).mkdir(parents=True)
        info = PngImagePlugin.PngInfo()
        info.add_text("model", f"made by {name}")
        for seed, item in enumerate(IDS):
            damage[name](render(scene(seed), size)).save(folder / name / f"{item}.png", pnginfo=info)
    return {name: folder / name for name in NAMES}


def pixels(path: Path) -> bytes:
    with Image.open(path) as opened:
        return opened.convert("RGB").tobytes()


def small_study(candidates: dict[str, Path], out: Path, **changes) -> Study:
    return build_study(candidates, out, **{"prompts": PROMPTS, "num_raters": 2, **changes})


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> dict:
        return json.loads(self.body)


class Client:
    """Somebody with a browser, or with less honest tools."""

    def __init__(self, url: str) -> None:
        self.url, self.cookie = url, ""

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        """Exactly this path, unlike clients that tidy it up first."""
        sent = {"Cookie": self.cookie} if self.cookie else {}
        sent |= {name.replace("_", "-"): value for name, value in headers.items() if value}
        connection = http.client.HTTPConnection(self.url.removeprefix("http://"), timeout=60)
        try:
            connection.request(method, path, body, sent)
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, found, response.read())
        finally:
            connection.close()

    def get(self, path: str) -> Answer:
        return self.ask("GET", path)

    def post(self, path: str, given: dict, **headers: str) -> Answer:
        sent = {"Origin": self.url, "Content_Type": "application/json", **headers}
        return self.ask("POST", path, json.dumps(given).encode(), **sent)

    def join(self, token: str) -> Answer:
        answer = self.post("/join", {"token": token})
        self.cookie = answer.headers["set-cookie"].partition(";")[0]
        return answer

    def shown(self, position: int) -> list[str]:
        """Opaque names on a ballot, in order."""
        page = self.get(f"/ballot/{position}")
        assert page.status == 200
        return re.findall(r'<figure class="pane" data-picture="(\w+)"', page.text)

    def vote(self, position: int, aspect: str, picture: str, **headers: str) -> Answer:
        choice = {"position": position, "aspect": aspect, "picture": picture, "zoomed": False}
        return self.post("/vote", choice, **headers)


@dataclass
class Site:
    """A study that is being served."""

    study: Study
    url: str
    tokens: list[str]

    def client(self) -> Client:
        return Client(self.url)

    def rater(self, number: int) -> Client:
        """Somebody who has joined, from 1."""
        client = self.client()
        client.join(self.tokens[number - 1])
        return client

    def votes(self) -> list:
        """What is on the disk."""
        with BallotBox(self.study) as box:
            return box.votes()


@contextmanager
def running(study: Study) -> Iterator[Site]:
    """The real server on a free port of loopback, in a thread."""
    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    with BallotBox(study) as box:
        server = make_server(study, box, host="127.0.0.1", port=port, url=url)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            wait_for(lambda: server.started)
            yield Site(study, url, list(read_invitations(study.folder).values()))
        finally:
            server.should_exit = True
            thread.join()
            listening.close()


def wait_for(condition, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)

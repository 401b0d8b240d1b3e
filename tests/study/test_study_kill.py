"""The server dies while votes are under way; what it had acknowledged is there when it is back."""

from __future__ import annotations

import http.client
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from study_material import IDS, Client, wait_for

from urae.study.ballots import BallotBox, read_invitations
from urae.study.manifest import ASPECTS

Key = tuple[str, int, str]


@contextmanager
def serving(study, port: int) -> Iterator[None]:
    """A real `urae study serve`, killed with SIGKILL at the end."""
    command = [Path(sys.executable).with_name("urae"), "study", "serve", study.folder, "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        wait_for(lambda: is_up(port))
        yield
    finally:
        process.kill()
        process.wait()


def is_up(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Voter(threading.Thread):
    """Votes without pause, and changes its mind, until the server is gone."""

    def __init__(self, name: str, client: Client) -> None:
        super().__init__()
        self.rater, self.client = name, client
        self.shown = {position: client.shown(position) for position in range(1, len(IDS) + 1)}
        self.acknowledged: dict[Key, str] = {}
        self.under_way: tuple[Key, str] | None = None

    def run(self) -> None:
        for number in range(100_000):
            position, aspect = number % len(IDS) + 1, ASPECTS[number // 6 % 3].name
            key, picture = (self.rater, position, aspect), self.shown[position][number // 18 % 3]
            self.under_way = key, picture
            try:
                answer = self.client.vote(position, aspect, picture)
            except (OSError, http.client.HTTPException):  # cut off before or within the answer
                return
            assert answer.status == 200
            self.acknowledged[key] = picture


def on_disk(study) -> dict[Key, str]:
    with BallotBox(study) as box:
        assert box._db.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        return {(vote.rater, vote.position, vote.aspect): vote.picture for vote in box.votes()}


def test_nothing_acknowledged_is_lost_when_the_server_is_killed(study):
    port = free_port()
    clients = [Client(f"http://127.0.0.1:{port}") for _ in range(2)]
    known: dict[Key, str] = {}
    for num_wanted in (8, 20):
        with serving(study, port):
            for client, token in zip(clients, read_invitations(study.folder).values(), strict=True):
                # The second time the cookie of the first is still good.
                if not client.cookie:
                    client.join(token)
            voters = [Voter(f"rater-{number:02d}", client) for number, client in enumerate(clients, 1)]
            for voter in voters:
                voter.start()
            wait_for(
                lambda voters=voters, num=num_wanted: min(len(v.acknowledged) for v in voters) >= num // 2
            )
        for voter in voters:
            voter.join()
            known |= voter.acknowledged
        found, under_way = on_disk(study), dict(voter.under_way for voter in voters)
        assert known.keys() <= found.keys()
        for key, picture in found.items():
            # A vote that was under way is there, or it is not; nothing else differs.
            assert picture == known.get(key) or picture == under_way[key]
        known = found
    with serving(study, port):
        page = clients[0].get("/ballot/1").text
    pressed = re.findall(r'data-picture="(\w+)" aria-pressed="true"', page)
    assert pressed == [
        known["rater-01", 1, aspect.name] for aspect in ASPECTS if ("rater-01", 1, aspect.name) in known
    ]
    assert pressed

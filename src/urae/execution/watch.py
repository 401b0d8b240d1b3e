"""Whether the other processes of a run are still there.

A process that dies closes its connections, and the others notice at once. One whose machine or cable is lost closes
nothing: they would wait for it as long as for slow work. So each process tells all others every few seconds that it
lives, from a thread of its own, and ends when one has been silent for `SILENCE` seconds, whatever itself waits in.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import socket
import sys
import threading
import time
from datetime import timedelta

from torch.distributed import PrefixStore, TCPStore

__all__ = ["SILENCE", "Watch"]

SILENCE = 120.0
"""Seconds. Many times what the longest call of a library keeps other threads from running."""

ENDED, LOST = "ended", 2
"""What a process says last where all is well; the exit code of one that has lost another."""

FAILED = False
"""Whether this process ends by an error of which the interpreter does not know."""


class Watch:
    """Tells others that this process lives, and ends it when one of them is lost."""

    def __init__(self, rank: int, num: int) -> None:
        """Tells it once: after a barrier, all have."""
        self.own, self.keys = str(rank), [str(other) for other in range(num)]
        self.said = dict.fromkeys(self.keys, "")
        """What each said last: its machine, and the number of times."""
        self.heard = dict.fromkeys(self.keys, time.monotonic())
        """When that was new."""
        self.is_over = False
        self.store = self._connected()
        self._tell(0)

    def start(self) -> None:
        atexit.register(self._leave)
        for part in (self._talk, self._guard):
            threading.Thread(target=part, name="urae watch", daemon=True).start()

    def _connected(self) -> PrefixStore:
        # A connection of its own: whoever waits in a collective keeps the one that torch has made.
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        server = TCPStore(address, port, is_master=False, timeout=timedelta(seconds=SILENCE))
        start = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        return PrefixStore(f"urae/{start}", server)

    def _tell(self, number: int) -> None:
        self.store.set(self.own, f"{socket.gethostname()} {number}")

    def _talk(self) -> None:
        number = 0
        while not self.is_over:
            time.sleep(SILENCE / 20)
            number += 1
            with contextlib.suppress(RuntimeError):  # the guard knows how long nothing has been heard
                self._tell(number)
                self._listen()
                continue
            # The first process, on whose machine the store is, may be done before others.
            self.is_over = self.said[self.keys[0]] == ENDED

    def _listen(self) -> None:
        for key, value in zip(self.keys, self.store.multi_get(self.keys), strict=True):
            said = value.decode()
            if said != self.said[key] or said == ENDED:
                self.said[key], self.heard[key] = said, time.monotonic()

    def _guard(self) -> None:
        while not self.is_over:
            time.sleep(SILENCE / 20)
            silent = [key for key in self.keys if time.monotonic() - self.heard[key] > SILENCE]
            if silent:
                self._end(silent)

    def _end(self, silent: list[str]) -> None:
        # Silent itself, this process is the one that cannot be heard.
        who = "the other processes" if self.own in silent else ", ".join(map(self._name, silent))
        sentence = (
            f"error: nothing was heard of {who} for {SILENCE:g} s, so a machine or the network is lost; the same "
            "command goes on after what was kept\n"
        )
        os.write(2, sentence.encode())
        os._exit(LOST)

    def _name(self, key: str) -> str:
        return f"process {key} on {self.said[key].partition(' ')[0]}"

    def _leave(self) -> None:
        # One that fails is missed, since others may wait for it.
        if not (FAILED or hasattr(sys, "last_value")):
            with contextlib.suppress(RuntimeError):  # where whoever keeps it has ended before
                self.store.set(self.own, ENDED)

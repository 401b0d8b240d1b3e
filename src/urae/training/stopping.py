"""Stopping a run from outside: Ctrl-C, the SIGTERM of a cluster and the SIGUSR1 by which a scheduler warns of its limit
wait for the step that is under way."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

from urae.execution import gathered, this_process

__all__ = ["Stopping"]

WARNING = signal.SIGUSR1


class Stopping(contextlib.AbstractContextManager):
    """Inside it a signal is only noted; a second one ends the process at once, as the first would have outside.

    Under a launcher, which passes signals on and repeats them, only its own patience ends. Outside the main thread, to
    which Python gives signals alone, nothing is changed.
    """

    def __init__(self, *, show: bool) -> None:
        """show: tell on standard error that a signal has come."""
        self.show, self.asked = show, 0
        self.before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for one in (signal.SIGINT, signal.SIGTERM, WARNING):
                # What is ignored stays so, as Ctrl-C in the background. A warning is ignored by those who pass it on.
                if one == WARNING or signal.getsignal(one) is not signal.SIG_IGN:
                    self.before[one] = signal.signal(one, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def agreed(self) -> int:
        """The number of the signal that has come to any of the processes, in all of them; 0 for none."""
        return max(gathered([self.asked]))

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.asked = number
        if this_process().num_processes == 1:
            self._restore()
        if self.show:
            with contextlib.suppress(OSError):
                # Not by a stream, which may be in the middle of a line of its own.
                os.write(2, b"\nstopping after this step\n")

    def _restore(self) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler or signal.SIG_DFL)
        self.before = {}

"""The one process that holds the model and draws. The server talks to it by messages and outlives it: when it is
killed, the job fails with a sentence, and the next one starts another."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from urae.generation.asking import ModelRequest
from urae.io import sentence_of
from urae.ui.asking import model_of, request_of
from urae.ui.gallery import Gallery
from urae.ui.jobs import DrawingJob, JobBook

__all__ = ["Worker"]

CONTEXT = multiprocessing.get_context("spawn")


class Cancelled(Exception):
    """The job was asked to stop."""


class Worker:
    """Draws the jobs of a book, one after the other, until `close`."""

    def __init__(self, book: JobBook, model: ModelRequest, gallery: Gallery) -> None:
        self.book, self.model, self.gallery = book, model, gallery
        self.info: dict[str, Any] = {}
        """What is known of the model: native side, multiple and family; "error" where it cannot be opened."""
        self.process: Any = None
        self._cancel: dict[str, Any] = {}
        self._wake, self._closing = threading.Event(), False
        self._thread = threading.Thread(target=self._run, name="jobs", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """A job has been added."""
        self._wake.set()

    def cancel(self, id: str) -> None:
        """Stop a job: at once where it waits, after the step under way where it is drawn."""
        if self.book[id].state == "queued":
            self.book.change(id, state="stopped", message="stopped before it began")
        elif id in self._cancel:
            self._cancel[id].set()

    def close(self) -> None:
        """End the process; what is finished is on the disk."""
        self._closing = True
        self._wake.set()
        if self.process is not None:
            self.process.terminate()
        self._thread.join(timeout=10)

    def _run(self) -> None:
        link = self._started()
        while not self._closing:
            job = self.book.next()
            if job is None:
                self._wake.wait(timeout=1)
                self._wake.clear()
                continue
            if self.process is None or not self.process.is_alive():
                link = self._started()
            if "error" in self.info:
                self.book.change(job.id, state="failed", message=self.info["error"])
            else:
                self._draw(link, job)

    def _started(self) -> Any:
        """A new process, which opens the model; the server's end of the link to it."""
        link, theirs = CONTEXT.Pipe()
        self._stop = CONTEXT.Event()
        arguments = (theirs, self._stop, self.model, self.gallery)
        self.process = CONTEXT.Process(target=work, args=arguments, daemon=True)
        self.process.start()
        theirs.close()
        try:
            self.info = link.recv()
        except EOFError:
            self.process.join()
            self.info = {"error": f"{self._how_it_ended()} while it opened the model"}
        self.book.version += 1
        return link

    def _draw(self, link: Any, job: DrawingJob) -> None:
        self._stop.clear()
        self._cancel = {job.id: self._stop}
        try:
            link.send(job)
            while True:
                what, value = link.recv()
                if what == "end":
                    self.book.change(job.id, **value)
                    return
                if what == "preview":
                    self.book.preview[job.id] = value
                    value = {"previews": self.book[job.id].previews + 1}
                self.book.change(job.id, **value)
        except (EOFError, OSError):
            self.process.join()
            kept = "finished pictures are kept: press Go on"
            if self._closing:
                self.book.change(job.id, state="stopped", message=f"the server ended; {kept}")
            else:
                self.book.change(job.id, state="failed", message=f"{self._how_it_ended()}; {kept}")
        finally:
            self._cancel = {}

    def _how_it_ended(self) -> str:
        code = self.process.exitcode
        how = f"by signal {-code}" if code and code < 0 else f"with exit code {code}"
        return f"the drawing process ended {how}"


def work(link: Any, stop: Any, model: ModelRequest, gallery: Gallery) -> None:
    """The process: open the model, say what it is, then draw what comes."""
    from urae.ui.drawing import Studio

    try:
        studio = Studio(model)
    except Exception as error:
        link.send({"error": sentence_of(error) or f"a fault of urae: {type(error).__name__}: {error}"})
        return
    link.send(studio.info)
    with ExitStack() as stack:
        stack.callback(studio.close)
        while True:
            try:
                job = link.recv()
            except EOFError:
                return
            link.send(("end", _outcome(studio, job, link.send, stop, gallery)))


def _outcome(
    studio: Any, job: DrawingJob, send: Callable[[Any], None], stop: Any, gallery: Gallery
) -> dict[str, Any]:
    """How a job ended, as changes of it."""

    def told(**changes: Any) -> None:
        send(("change", changes))
        if stop.is_set():
            raise Cancelled

    def seen(preview: bytes) -> None:
        send(("preview", preview))

    try:
        native = gallery.path(job.asked["native"]) if job.asked.get("native") else None
        asked = request_of(job.asked, native)
        pictures = studio.draw(model_of(job.asked, studio.model), asked, gallery.out, told, seen)
    except Cancelled:
        return {"state": "stopped", "message": "stopped; finished pictures are kept"}
    except Exception as error:
        said = sentence_of(error) or f"a fault of urae: {type(error).__name__}: {error}"
        return {"state": "failed", "message": said}
    return {"state": "done", "pictures": pictures, "message": ""}

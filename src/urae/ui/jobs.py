"""The queue and the history: a file a job, so that neither a closed page nor a killed server loses one.

A job goes queued -> drawing -> done, stopped or failed. What was drawing when the server ended is stopped, and goes on
where it was when it is asked to: finished pictures are recognised by their names.
"""

from __future__ import annotations

import re
import secrets
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from urae.errors import BadFile, CannotWrite
from urae.io import json_line, read_json_object, write_text

__all__ = ["DrawingJob", "JobBook", "State"]

State = Literal["queued", "drawing", "done", "stopped", "failed"]
OVER: tuple[State, ...] = ("done", "stopped", "failed")


@dataclass(frozen=True, kw_only=True)
class DrawingJob:
    """Pictures that were asked for together."""

    id: str
    asked: Mapping[str, str]
    """The form's texts."""
    state: State = "queued"
    step: int = 0
    """Denoising steps done, of all its pictures."""
    num_steps: int = 0
    """Of all its pictures; 0 until they are planned."""
    plan: str = ""
    """How they are drawn, in words."""
    pictures: tuple[str, ...] = ()
    """Names of the finished ones in the folder."""
    message: str = ""
    """Why it stopped or failed."""
    made: float = 0.0
    """When it was asked for, seconds since 1970."""
    begun: float = 0.0
    """When drawing began."""
    previews: int = 0
    """How many previews there have been; the last is kept in memory."""

    @property
    def is_over(self) -> bool:
        """Whether nothing more happens by itself."""
        return self.state in OVER

    @property
    def seconds_left(self) -> float | None:
        """By the steps so far; None before the first."""
        if self.state != "drawing" or not (self.step and self.num_steps):
            return None
        return (time.time() - self.begun) / self.step * (self.num_steps - self.step)

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return asdict(self) | {"pictures": list(self.pictures), "asked": dict(self.asked)}


@dataclass
class JobBook:
    """All jobs of a folder. Safe to use from several threads."""

    folder: Path
    version: int = 0
    """Rises with every change."""
    preview: dict[str, bytes] = field(default_factory=dict)
    """The last preview of a job that is being drawn, a PNG."""
    _jobs: dict[str, DrawingJob] = field(default_factory=dict)
    _lock: Any = field(default_factory=threading.RLock)
    _last: int = 0
    """When the last job was made, nanoseconds since 1970."""

    def __post_init__(self) -> None:
        for path in sorted(self.folder.glob("*.json")):
            job = _read(path)
            if not job.is_over:
                job = replace(job, state="stopped", message="the server ended before it was finished")
            self._jobs[job.id] = job

    def add(self, asked: Mapping[str, str]) -> DrawingJob:
        """A new job at the end of the queue."""
        with self._lock:
            now = max(time.time_ns(), self._last + 1)  # the order of the queue
            self._last = now
        job = DrawingJob(id=f"{now:016x}-{secrets.token_hex(4)}", asked=dict(asked), made=now / 1e9)
        return self._put(job)

    def change(self, id: str, **changes: Any) -> DrawingJob:
        """The job with other values. LookupError for an unknown one. Where a full disk takes no note of it, the job
        says so, and is right until the server ends."""
        with self._lock:
            job = replace(self[id], **changes)
            try:
                return self._put(job)
            except CannotWrite as error:
                return self._hold(replace(job, message=f"{job.message}; {error}".removeprefix("; ")))

    def __getitem__(self, id: str) -> DrawingJob:
        with self._lock:
            return self._jobs[id]

    def all(self) -> list[DrawingJob]:
        """Every job, the newest first."""
        with self._lock:
            return sorted(self._jobs.values(), key=lambda job: job.id, reverse=True)

    def next(self) -> DrawingJob | None:
        """The job that has waited longest."""
        return next((job for job in reversed(self.all()) if job.state == "queued"), None)

    def _put(self, job: DrawingJob) -> DrawingJob:
        with self._lock:
            before = self._jobs.get(job.id)
            # Steps and previews are told to pages alone: a restart begins with the finished pictures anyway.
            if before is None or (before.state, before.pictures) != (job.state, job.pictures):
                write_text(self.folder / f"{job.id}.json", json_line(job.to_dict()))
            return self._hold(job)

    def _hold(self, job: DrawingJob) -> DrawingJob:
        self._jobs[job.id] = job
        self.version += 1
        if job.is_over:
            self.preview.pop(job.id, None)
        return job


def _read(path: Path) -> DrawingJob:
    told = read_json_object(path)
    try:
        job = DrawingJob(**{**told, "pictures": tuple(told["pictures"])})
        known = job.state in get_args(State) and all(isinstance(name, str) for name in job.pictures)
        if known and job.id == path.stem and re.fullmatch(r"[0-9a-f]+-[0-9a-f]{8}", job.id):
            return job
    except (KeyError, TypeError):
        pass
    raise BadFile(f"{path} is not a job of this page: move it away")

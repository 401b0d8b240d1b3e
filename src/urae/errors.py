"""What can go wrong in the world, as opposed to in what a user gave (that is a ``ValueError``).

UraeError
├── MissingExtra       an optional package is not installed; the message holds the line that installs it
├── WrongBase          an adapter or a checkpoint does not belong to the model it is applied to
├── BadFile            a file is truncated, damaged, or of a layout that we do not read
├── CannotWrite        a file cannot be written: the disk is full, there are no rights, something stands there
├── StaleCache         cached latents or embeddings do not belong to the data or model in use
└── TrainingDiverged   the loss became NaN or infinite

Beside it, `Stopped`: a run that was asked to end, and has kept what it did.
"""

from __future__ import annotations

__all__ = [
    "BadFile",
    "CannotWrite",
    "MissingExtra",
    "StaleCache",
    "Stopped",
    "TrainingDiverged",
    "UraeError",
    "WrongBase",
]


class UraeError(Exception):
    """Base of every error that `urae` raises about the world."""


class MissingExtra(UraeError):
    """An optional package is not installed."""


class WrongBase(UraeError):
    """An adapter or checkpoint does not belong to this model."""


class BadFile(UraeError):
    """A file is truncated, damaged or of an unknown layout."""


class CannotWrite(UraeError):
    """A file cannot be written: the disk is full, there are no rights, or something else stands there."""


class StaleCache(UraeError):
    """A cache entry does not belong to the data or the model in use."""


class TrainingDiverged(UraeError):
    """The loss became NaN or infinite."""


class Stopped(KeyboardInterrupt):
    """A signal asked for a run's end, and the same command goes on with it. No error, so nothing that handles errors
    goes on by itself."""

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.code = 128 + signal
        """What a shell says of a process that the signal ended."""

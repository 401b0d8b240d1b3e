"""The one door: what comes in from outside is checked here once, and what goes out is written here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from urae.exports import lazily

if TYPE_CHECKING:
    from urae.io.progress import Progress, tracked

__all__ = [
    "Progress",
    "tracked",
]

__getattr__, __dir__ = lazily(
    __name__,
    {
        "progress": ["Progress", "tracked"],
    },
)

"""What a teacher is: something that makes an image of a prompt, for money or time, and may refuse, tarry or fail.

A teacher answers an order with a ticket, by which the image is fetched later, or with the image. It does one thing at
a call and never waits: the waiting, repeating and counting is `collect`'s.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from urae.errors import UraeError
from urae.resolution import Size

__all__ = [
    "Expired",
    "Gone",
    "ImageOrder",
    "Later",
    "Moderated",
    "TakenOrder",
    "Teacher",
    "Unserved",
    "check_mix",
    "mix_of",
    "parse_size",
    "pixel_sizes",
]


class Later(UraeError):
    """No answer now; asking again may help."""

    def __init__(self, reason: str, *, seconds: float = 0.0, ordered: bool = False) -> None:
        super().__init__(reason)
        self.seconds = seconds
        """To wait at least, as the server says."""
        self.ordered = ordered
        """Whether an order may have been taken all the same, and may have to be paid."""


class Expired(Later):
    """The address of a finished image is no longer valid; asking again may give another."""


class Moderated(UraeError):
    """The teacher will not make this image (moderation); asking again would not help."""


class Gone(UraeError):
    """A ticket leads to no image: the teacher failed, or has forgotten it. The image has to be ordered anew."""


class Unserved(UraeError):
    """The teacher serves us no more: wrong key, no credit, wrong settings, or it stays away."""

    def __init__(self, reason: str, *, ordered: bool = False) -> None:
        super().__init__(reason)
        self.ordered = ordered
        """Whether the order may have been taken all the same."""


@dataclass(frozen=True, kw_only=True)
class ImageOrder:
    """One image to be ordered."""

    key: str
    """Names it in a collection; a function of the prompt and its copy."""
    name: str
    """Of its file, without the ending: the prompt's id, or the key."""
    prompt: str
    shape: str
    """One of the teacher's shapes: an aspect ratio such as "16:9", or a size such as "2048x1152"."""
    seed: int
    """In [0, 2^31)."""
    num_gone: int = 0
    """Orders of it that came to nothing before."""


@dataclass(frozen=True, kw_only=True)
class TakenOrder:
    """What a teacher answers to an order that it takes."""

    cost: float
    """In the teacher's currency, as it says; what is no cost is counted as the teacher's price of the shape."""
    ticket: dict[str, Any] = field(default_factory=dict)
    """JSON values by which `fetch` finds the image, also in a later run."""
    image: bytes = b""
    """The image file, where the teacher answers with it."""


class Teacher(Protocol):
    """A source of synthetic images."""

    @property
    def name(self) -> str:
        """The model, as records name it."""

    @property
    def terms(self) -> str:
        """Under which licence or terms the images come, in words, for whoever is about to pay for them."""

    @property
    def concurrency(self) -> int:
        """Images under way at a time."""

    @property
    def rate(self) -> float:
        """Most orders a minute."""

    @property
    def shapes(self) -> Mapping[str, float]:
        """Shapes to draw from, with their weights."""

    @property
    def sizes(self) -> Mapping[str, Size]:
        """Width and height (px) of the images of each shape, as far as they are known before any is made: of its mix,
        and of others that it offers."""

    @property
    def gives_tickets(self) -> bool:
        """Whether orders are answered at once with a ticket. They are then sent one at a time, so that a run that is
        killed can lose no more than one."""

    @property
    def poll_every(self) -> float:
        """Seconds between two looks at a ticket whose image is not ready."""

    def price_of(self, shape: str) -> float:
        """What an image of this shape is expected to cost: 0 for one that is free, NaN where nobody has said."""

    def settings(self) -> dict[str, Any]:
        """What an image depends on beside its order, as JSON values."""

    def ready(self) -> None:
        """Raise `ValueError` or `MissingExtra` where orders are bound to fail."""

    def order(self, wanted: ImageOrder) -> TakenOrder:
        """Order an image. Raises `Later`, `Moderated` or `Unserved`."""

    def fetch(self, ticket: dict[str, Any]) -> bytes | None:
        """The image file, None while it is being made. Raises `Later`, `Moderated`, `Gone` or `Unserved`."""


def check_mix(shapes: Mapping[str, float]) -> None:
    """`ValueError` unless shapes can be drawn by these weights."""
    if not shapes or min(shapes.values()) <= 0:
        mix = ", ".join(f"{shape}={weight:g}" for shape, weight in shapes.items()) or "empty"
        raise ValueError(f"the mix of shapes is {mix}: expected one or more, each with a weight above 0")


def mix_of(*shapes: str) -> dict[str, float]:
    """These shapes with weights: squares twice as many as each of the others, which come in pairs."""
    return {shape: 2.0 if len(set(re.split("[x:]", shape))) == 1 else 1.0 for shape in shapes}


def parse_size(shape: str) -> Size:
    """Width and height of "512x384", px."""
    sides = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", shape)
    if sides is None:
        raise ValueError(f"shape is {shape!r}: expected WIDTHxHEIGHT in pixels, such as 512x384")
    return int(sides[1]), int(sides[2])


def pixel_sizes(*shapes: str) -> dict[str, Size]:
    """The sizes of these shapes in pixels, each wide one upright too."""
    sizes = [parse_size(shape) for shape in shapes]
    return {f"{w}x{h}": (w, h) for size in sizes for w, h in (size, size[::-1])}

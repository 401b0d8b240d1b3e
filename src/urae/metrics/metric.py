"""What every metric is: a declaration, from which the docs table is made, and a reader that is opened from it.

A reader turns pictures into arrays, one a picture: a single value, or features (rows, dims) of a metric that has one
number for a whole set. What it reads depends on nothing but the sample and its `identity`, so arrays can be kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import numpy as np

from urae.metrics.pictures import MeasuredPicture
from urae.metrics.weights import LocalWeights
from urae.statistics import Interval
from urae.statistics.intervals import Bounds
from urae.statistics.table import Direction

__all__ = ["Distance", "Metric", "Needs", "Options", "PlainReader", "Reader", "plain"]

Needs = Literal["picture", "prompt", "pair", "set"]


class Reader(Protocol):
    """An opened metric."""

    @property
    def identity(self) -> str:
        """Variant, settings and hash of the weights."""

    @property
    def device(self) -> str:
        """Where it computes: "cpu" or "cuda"."""

    def read(self, samples: Sequence[MeasuredPicture]) -> list[np.ndarray]:
        """One array a sample: shape () for a value, (rows, dims) for features."""


class Distance(Protocol):
    """Features of one set, a (rows, dims) array a picture, against those of another."""

    def __call__(
        self,
        features: Sequence[np.ndarray],
        reference: Sequence[np.ndarray],
        *,
        seed: int = 0,
    ) -> Interval: ...


@dataclass(frozen=True, kw_only=True)
class Options:
    """How metrics with a network or crops are opened."""

    device: str
    num_crops: int
    """Native crops of each picture."""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One metric: what it says and sees, what it needs, and how it is opened."""

    name: str
    says: str
    """In a few words."""
    direction: Direction
    """Which is better; "neither" for what is not a matter of better and worse."""
    range: str
    needs: Needs
    """The picture alone, its prompt, its own reference picture ("pair"), or a set of reference pictures."""
    sees: str
    """What it looks at of a 2K or 4K picture."""
    open: Callable[[LocalWeights | None, Options], Reader]
    paper: str = "-"
    weights: str = ""
    """Which file or folder holds the weights; empty for a metric without."""
    licence: str = ""
    """Of the weights, and of code that a user installs, as their own pages have it (November 2026)."""
    digits: int = 3
    """Decimals shown."""
    bounds: Bounds | None = None
    """Of a share of things counted, the least and the greatest value."""
    distance: Distance | None = None
    """Of a metric that needs a set."""
    crop: int = 0
    """Side of its native crops in pixels, 0 for a metric without."""
    enough: int = 0
    """With fewer rows of features it is never printed without `beside`."""
    beside: str = ""
    """The metric of the same features that few pictures do not bias."""


@dataclass(frozen=True, kw_only=True)
class PlainReader:
    """A function of the sample, without weights."""

    device: ClassVar[str] = "cpu"

    identity: str
    function: Callable[[MeasuredPicture], float]

    def read(self, samples: Sequence[MeasuredPicture]) -> list[np.ndarray]:
        return [np.array(self.function(sample)) for sample in samples]


def plain(
    name: str, function: Callable[[MeasuredPicture], float]
) -> Callable[[LocalWeights | None, Options], Reader]:
    """How a metric that is a function of the sample is opened."""
    return lambda weights, options: PlainReader(identity=name, function=function)

"""The curves by noise level, as numbers for the page's SVG, which follows the reader's colours."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from urae.pages.curves import round_step
from urae.statistics.intervals import Comparison, Interval

__all__ = ["Chart", "Curve", "chart_of"]

WIDTH, HEIGHT = 480.0, 300.0
LEFT, RIGHT, TOP, BOTTOM = 48.0, 12.0, 12.0, 40.0
"""Margins in the units of the view box."""
TICKS = 6
DASHES = ("", "7 3", "2 3")


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One policy."""

    name: str
    dash: str
    points: tuple[tuple[float, float, float, float], ...]
    """x, y and the y of either end of the interval, at each noise level."""

    @property
    def path(self) -> str:
        """For `points=` of a polyline."""
        return " ".join(f"{x:.1f},{y:.1f}" for x, y, _, _ in self.points)


@dataclass(frozen=True, kw_only=True)
class Chart:
    """Everything in the units of the view box."""

    width: float
    height: float
    left: float
    right: float
    top: float
    bottom: float
    curves: tuple[Curve, ...]
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    zero: float
    deciding_from: float
    """x from which on errors decide."""


def chart_of(
    curves: Mapping[str, Sequence[Comparison]], sigmas: Sequence[float], deciding: Sequence[int]
) -> Chart:
    """Curves over sigma from 0 to 1; each value is a paired difference with its interval."""
    ends = [
        v for found in curves.values() for one in found for v in (one.difference.low, one.difference.high)
    ]
    step = round_step(min([0.0, *ends]), max([0.0, *ends]), ticks=TICKS)
    first, last = math.floor(min([0.0, *ends]) / step), math.ceil(max([0.0, *ends]) / step)
    left, right, top, bottom = LEFT, WIDTH - RIGHT, TOP, HEIGHT - BOTTOM

    def x(sigma: float) -> float:
        return left + sigma * (right - left)

    def y(value: float) -> float:
        return bottom - (value / step - first) / (last - first) * (bottom - top)

    def point(place: int, found: Interval) -> tuple[float, float, float, float]:
        return x(sigmas[place]), y(found.value), y(found.low), y(found.high)

    order = sorted(range(len(sigmas)), key=lambda place: sigmas[place])
    return Chart(
        width=WIDTH,
        height=HEIGHT,
        left=left,
        right=right,
        top=top,
        bottom=bottom,
        curves=tuple(
            Curve(
                name=name,
                dash=DASHES[number % len(DASHES)],
                points=tuple(point(place, found[place].difference) for place in order),
            )
            for number, (name, found) in enumerate(curves.items())
        ),
        x_ticks=tuple((x(tenths / 10), f"{tenths / 10:g}") for tenths in range(0, 11, 2)),
        y_ticks=tuple(
            (y(number * step), f"{number * step:+g}" if number else "0") for number in range(first, last + 1)
        ),
        zero=y(0),
        deciding_from=x(min(sigmas[place] for place in deciding)),
    )

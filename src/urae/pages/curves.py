"""Curves as SVG in the colours of the page around them: a class each and no style inside, so that a page whose
policy allows no inline style shows them too."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape

__all__ = ["curves_svg", "round_step"]

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 640, 240, 56, 28, 12, 12
"""Of the picture and its margins, in its own units; it scales with the page."""


def curves_svg(curves: Mapping[str, Sequence[tuple[float, float]]], *, across: str) -> str:
    """Named curves of points (x, y), x rising, over one pair of axes; `across` names the x axis. "" where there is no
    finite point. The i-th curve has the class `curve c<i>`."""
    finite = {name: [p for p in points if math.isfinite(p[1])] for name, points in curves.items()}
    every = [point for points in finite.values() for point in points]
    if not every:
        return ""
    xs, ys = [x for x, _ in every], [y for _, y in every]
    to_x = _scale(min(xs), max(xs), LEFT, WIDTH - RIGHT)
    to_y = _scale(min(ys), max(ys), HEIGHT - BOTTOM, TOP)
    parts = [
        f'<svg class="curves" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(", ".join(finite))}">'
    ]
    for value in _marks(min(ys), max(ys)):
        y = to_y(value)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(
            f'<text class="mark" x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.4g}</text>'
        )
    for value in (mark for mark in _marks(min(xs), max(xs)) if to_x(mark) < WIDTH - RIGHT - 60):
        parts.append(
            f'<text class="mark" x="{to_x(value):.1f}" y="{HEIGHT - 8}" text-anchor="middle">{value:.6g}</text>'
        )
    parts.append(
        f'<text class="mark" x="{WIDTH - RIGHT}" y="{HEIGHT - 8}" text-anchor="end">{escape(across)}</text>'
    )
    for number, points in enumerate(finite.values()):
        line = " ".join(f"{to_x(x):.1f},{to_y(y):.1f}" for x, y in _thinned(points))
        parts.append(f'<polyline class="curve c{number}" fill="none" points="{line}"/>')
    return "".join([*parts, "</svg>"])


def round_step(least: float, most: float, *, ticks: int) -> float:
    """A round step, 1, 2 or 5 times a power of ten, that makes at most about `ticks` of the range."""
    rough = max(most - least, 1e-9) / ticks
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * (1 - 1e-9))


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    span = (high - low) or 1.0
    return lambda value: start + (value - low) / span * (end - start)


def _marks(low: float, high: float) -> list[float]:
    """Some four round numbers in [low, high]."""
    if high <= low:
        return [low]
    step = round_step(low, high, ticks=4)
    return [i * step for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _thinned(points: Sequence[tuple[float, float]], most: int = 600) -> Sequence[tuple[float, float]]:
    """At most so many points, each the mean of its neighbours."""
    width = math.ceil(len(points) / most)
    groups = [points[i : i + width] for i in range(0, len(points), width)]
    return [(g[-1][0], sum(y for _, y in g) / len(g)) for g in groups]

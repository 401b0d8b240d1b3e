"""A histogram as a small SVG, so that a page needs no plotting package."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["histogram"]

WIDTH, HEIGHT = 360, 160
"""As they are shown, so that letters have their size."""
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 12, 40
BINS = 24


def histogram(values: Sequence[float], *, label: str, logarithmic: bool = False) -> str:
    """An SVG of how often values fall into 24 bins of equal width, or of equal ratio if `logarithmic`, with what is
    counted named below and the least, median and most marked."""
    numbers = np.asarray(values, dtype=float)
    place = np.log(numbers) if logarithmic else numbers
    low, high = float(place.min()), float(place.max())
    low, high = (low - 0.5, high + 0.5) if high - low < 1e-9 else (low, high)
    counts, edges = np.histogram(place, bins=BINS, range=(low, high))

    def x(position: float) -> float:
        return LEFT + (position - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    def y(count: float) -> float:
        return HEIGHT - BOTTOM - count / counts.max() * (HEIGHT - TOP - BOTTOM)

    bars = "".join(
        f'<rect x="{x(left) + 1:.1f}" y="{y(count):.1f}" width="{x(right) - x(left) - 2:.1f}" '
        f'height="{HEIGHT - BOTTOM - y(count):.1f}" rx="1.5"/>'
        for count, left, right in zip(counts, edges, edges[1:], strict=False)
        if count
    )
    marks = {float(np.quantile(numbers, share)) for share in (0, 0.5, 1)}
    marked = "".join(
        _mark(x(float(np.log(v)) if logarithmic else v), v) for v in _apart(sorted(marks), x, logarithmic)
    )
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="100%" role="img" aria-label="{label}">'
        f'<g fill="#1f5fa8">{bars}</g>'
        f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{HEIGHT - BOTTOM}" y2="{HEIGHT - BOTTOM}" stroke="#c3cad5"/>'
        f'<g font-family="system-ui, sans-serif" font-size="12" fill="#5b6472">{marked}'
        f'<text x="{LEFT - 8}" y="{y(counts.max()) + 10:.1f}" text-anchor="end">{counts.max()}</text>'
        f'<text x="{LEFT - 8}" y="{HEIGHT - BOTTOM}" text-anchor="end">0</text>'
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 5}" text-anchor="middle">{label}</text></g></svg>'
    )


def _apart(marks: list[float], x: object, logarithmic: bool) -> list[float]:
    """The least and the most, and the median where it does not run into them."""
    assert callable(x)
    places = [x(float(np.log(mark)) if logarithmic else mark) for mark in marks]
    if len(marks) == 3 and min(places[1] - places[0], places[2] - places[1]) < 48:
        return [marks[0], marks[2]]
    return marks


def _mark(x: float, value: float) -> str:
    text = f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
    anchor = "start" if x < LEFT + 20 else "end" if x > WIDTH - RIGHT - 20 else "middle"
    return f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 15}" text-anchor="{anchor}">{text}</text>'

"""A loss curve as a small SVG, so that a report needs no plotting package."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

__all__ = ["loss_curve"]

WIDTH, HEIGHT = 520, 220
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 14, 40


def loss_curve(steps: Sequence[int], losses: Sequence[float], *, window: int = 15) -> str:
    """An SVG of the loss against the step: every value as a faint line, their running mean over `window` steps
    as a strong one."""
    values = np.asarray(losses, dtype=float)
    width = min(window, len(values))
    smooth = np.convolve(values, np.ones(width) / width, mode="valid")
    low, high = float(np.percentile(values, 1)), float(np.percentile(values, 99))
    low, high = low - 0.05 * (high - low) - 1e-9, high + 0.05 * (high - low) + 1e-9
    first, last = min(steps), max(max(steps), min(steps) + 1)

    def x(step: float) -> float:
        return LEFT + (step - first) / (last - first) * (WIDTH - LEFT - RIGHT)

    def y(loss: float) -> float:
        return TOP + (high - float(np.clip(loss, low, high))) / (high - low) * (HEIGHT - TOP - BOTTOM)

    raw = " ".join(f"{x(s):.1f},{y(v):.1f}" for s, v in zip(steps, values, strict=True))
    mean = " ".join(f"{x(s):.1f},{y(v):.1f}" for s, v in zip(steps[width - 1 :], smooth, strict=True))
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="100%" role="img" aria-label="training loss">'
        f'<g font-family="system-ui, sans-serif" font-size="12" fill="#5b6472">'
        f"{_levels(low, high, y)}{_marks(first, last, x)}"
        f'<text x="{(LEFT + WIDTH) / 2}" y="{HEIGHT - 6}" text-anchor="middle">step</text></g>'
        f'<polyline points="{raw}" fill="none" stroke="#9db4d0" stroke-width="1"/>'
        f'<polyline points="{mean}" fill="none" stroke="#1f5fa8" stroke-width="2.5"/></svg>'
    )


def _levels(low: float, high: float, y: Callable[[float], float]) -> str:
    levels = np.linspace(low, high, 5)[1:-1]
    lines = (
        f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(v):.1f}" y2="{y(v):.1f}" stroke="#e4e8ee"/>'
        f'<text x="{LEFT - 8}" y="{y(v) + 4:.1f}" text-anchor="end">{v:.2f}</text>'
        for v in levels
    )
    return "".join(lines)


def _marks(first: int, last: int, x: Callable[[float], float]) -> str:
    marks = sorted({round(v) for v in np.linspace(first, last, 5)})
    return "".join(f'<text x="{x(s):.1f}" y="{HEIGHT - 22}" text-anchor="middle">{s}</text>' for s in marks)

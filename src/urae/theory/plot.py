"""Pictures of the theorem: error against share (the paper's Figure 2), bounds against simulation, advice.

Needs the extra `theory` (matplotlib). Colours are told apart without red and green, and every line has its
own dash or marker besides. Figures are made without pyplot, so nothing global changes.
"""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jinja2 import Environment, PackageLoader
from numpy.typing import ArrayLike

from urae.errors import MissingExtra
from urae.theory.advice import Advice
from urae.theory.error import exact_error, printed_bound, valid_bound
from urae.theory.problem import Array, Problem
from urae.theory.share import error_curve
from urae.theory.simulation import Simulation

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Section", "advice_figure", "bound_figure", "save_figure", "share_figure", "write_page"]

BLUE, ORANGE, VERMILION, GRAY = "#0072b2", "#e69f00", "#d55e00", "#777777"  # Okabe and Ito's palette
DASHES: tuple[str, ...] = ("-", "--", "-.", ":")
SHARES = np.linspace(0, 1, 201)


@dataclass(frozen=True, kw_only=True)
class Section:
    """One figure of a page."""

    heading: str
    text: str
    """A paragraph, plain text."""
    figure: Figure
    alt: str
    """What the figure shows, for a reader who does not see it."""
    table: Sequence[Sequence[str]] = ()
    """Rows of cells, the first one the header."""


def share_figure(problem: Problem, *, noises: Sequence[float]) -> Figure:
    """Exact error against the share of synthetic data at convergence, for several variances of label noise, minima
    marked.

    The paper's Figure 2. noises: variances of real labels, in place of the problem's own.
    """
    figure, (axes,) = _panels(1)
    for index, noise in enumerate(sorted(noises, reverse=True)):
        curve = error_curve(replace(problem, noise=noise))
        color = _sequential(index / max(len(noises) - 1, 1))
        axes.plot(SHARES, curve.at(SHARES), color=color, ls=DASHES[index % len(DASHES)], label=f"{noise:g}")
        best = curve.best()
        axes.plot(best.share, best.error, "o", color=color, markeredgecolor="black", clip_on=False, zorder=3)
    axes.set_xlabel("share of synthetic data, p")
    axes.legend(title="label noise,\nvariance", loc="upper left", bbox_to_anchor=(1.0, 1.02), frameon=False)
    axes.set_title("Expected squared error at convergence; dots: the best share", loc="left")
    return figure


def bound_figure(
    problem: Problem, *, share: float, steps: ArrayLike, by_steps: Simulation, by_share: Simulation
) -> Figure:
    """The exact error, the printed bound and the valid one against simulation, over steps and over the share.

    share: of the left panel. steps: whole numbers (T,), the last one that of the right panel. by_steps:
    simulated at `share` and `steps`, (T,). by_share: simulated after the last step, at even shares (P,).
    """
    num_steps = np.asarray(steps)
    last = num_steps[-1]
    figure, (left, right) = _panels(2)

    def totals(bound: Callable) -> Array:
        return bound(problem, shares=share, steps=num_steps).total

    _bounds(left, num_steps, totals, by_steps, num_steps)
    left.set_xscale("symlog", linthresh=1)
    left.set_xlim(left=0)
    left.xaxis.set_major_formatter("{x:g}")
    left.set_xlabel("steps, T")
    left.set_title(f"share p = {share:g}", loc="left")
    simulated = np.linspace(0, 1, len(by_share.mean))
    _bounds(right, SHARES, lambda bound: bound(problem, shares=SHARES, steps=last).total, by_share, simulated)
    right.set_xlabel("share of synthetic data, p")
    right.set_title(f"after T = {last} steps", loc="left")
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    return figure


def advice_figure(advice: Advice) -> Figure:
    """Expected error against the share, with the best share, the good ones and the range of likely ones."""
    figure, (axes,) = _panels(1)
    best = advice.best
    axes.axvspan(*best.good, color=ORANGE, alpha=0.25, lw=0, label="error within 10% of the least")
    if advice.likely[0] < advice.likely[1]:
        label = "90% range of the best share"
        axes.axvspan(*advice.likely, facecolor="none", edgecolor=GRAY, hatch="///", lw=0, label=label)
    axes.plot(SHARES, best.curve.at(SHARES), color=BLUE, lw=2, label="expected error")
    (dot,) = axes.plot(best.share, best.error, "o", color=BLUE, label="best share", clip_on=False)
    dot.set_markeredgecolor("black")
    axes.set_xlabel("share of synthetic data, p")
    axes.set_ylabel("expected squared error")
    axes.set_title("At convergence", loc="left")
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return figure


def save_figure(figure: Figure, path: Path) -> Path:
    """Write the figure as PNG, complete or not at all; returns the path."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=160)
    return _write(path, buffer.getvalue())


def write_page(path: Path, *, title: str, sections: Sequence[Section]) -> Path:
    """Write figures and text as one HTML file that loads nothing from elsewhere; returns the path."""
    environment = Environment(loader=PackageLoader("urae.theory"), autoescape=True, trim_blocks=True)
    page = environment.get_template("page.html.j2").render(title=title, sections=sections, svg=_svg)
    return _write(path, f"{page}\n".encode())


def _bounds(
    axes: Axes,
    x: Array,
    total: Callable[[Callable], Array],
    simulation: Simulation,
    simulated: Array,
) -> None:
    axes.plot(x, total(valid_bound), color=BLUE, ls="--", label="valid bound")
    axes.plot(x, total(exact_error), color="black", label="exact")
    axes.plot(x, total(printed_bound), color=VERMILION, ls=":", lw=2.2, label="bound as printed")
    axes.errorbar(
        simulated,
        simulation.mean,
        yerr=4 * simulation.standard_error,
        fmt="o",
        color=ORANGE,
        markeredgecolor="black",
        ecolor="black",
        ms=5,
        capsize=2,
        label="simulation, ± 4 standard errors",
        zorder=3,
    )


def _panels(num: int) -> tuple[Figure, Sequence[Axes]]:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtra("plots need matplotlib: pip install 'urae[theory]'") from error
    figure = Figure(figsize=(6.4 if num == 1 else 9.6, 4.2), layout="constrained")
    row = figure.subplots(1, num, squeeze=False)[0]
    for axes in row:
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#dddddd", lw=0.6)
    row[0].set_ylabel(r"E $\|W_T - W^*\|^2$")
    return figure, row


def _sequential(position: float) -> tuple[float, ...]:
    from matplotlib import colormaps

    return colormaps["cividis"](0.78 * position)


def _svg(figure: Figure) -> str:
    """As an address that holds it."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return f"data:image/svg+xml;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_bytes(content)
    os.replace(temporary, path)
    return path

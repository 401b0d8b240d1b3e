"""A run as a person wants to see it: curves, samples by step, the recipe, and what the plan said beside what happened.

`report.html` in the run's directory is one file that needs nothing else; `urae ui` shows the same facts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from urae.io import read_text, write_text
from urae.io.pictures import read_picture
from urae.pages import data_uri, html_page, thumbnail
from urae.pages.curves import curves_svg
from urae.training.metrics import read_metrics
from urae.training.settings import load_recipe

__all__ = ["RunFacts", "facts_of", "write_report"]

SMOOTHED = 0.95
"""Share of the past in the running mean of the loss, whose single values differ by their noise levels."""


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """What a run's directory says."""

    folder: Path
    recipe: str
    """YAML."""
    step: int
    """The last one."""
    steps: int
    """That the recipe asks for."""
    loss: float | None
    """Its running mean."""
    validation_loss: float | None
    seconds: float
    """Of all steps, samples and validation aside."""
    samples: tuple[Path, ...]
    """Sample pictures, by step and prompt."""
    loss_svg: str
    validation_svg: str
    speed_svg: str


def facts_of(folder: Path) -> RunFacts:
    """What the directory of a run holds. Raises `BadFile`."""
    rows = read_metrics(folder / "metrics.jsonl") if (folder / "metrics.jsonl").exists() else []
    recipe = read_text(folder / "recipe.yaml")
    losses = smoothed([(row["step"], row["loss"]) for row in rows if "loss" in row])
    validation = [(row["step"], row["validation_loss"]) for row in rows if "validation_loss" in row]
    seconds = [(row["step"], row["seconds"]) for row in rows if "seconds" in row]
    return RunFacts(
        folder=folder,
        recipe=recipe,
        step=int(rows[-1]["step"]) if rows else 0,
        steps=load_recipe(folder / "recipe.yaml").steps,
        loss=losses[-1][1] if losses else None,
        validation_loss=validation[-1][1] if validation else None,
        seconds=sum(value for _, value in seconds),
        samples=tuple(sorted((folder / "samples").glob("*.png"))),
        loss_svg=curves_svg({"loss, running mean": losses}, across="step"),
        validation_svg=curves_svg({"validation loss": validation}, across="step"),
        speed_svg=curves_svg({"seconds a step": seconds}, across="step"),
    )


def smoothed(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The running mean of values, without the bias of its start."""
    mean, weight, means = 0.0, 0.0, []
    for step, value in points:
        mean = SMOOTHED * mean + (1 - SMOOTHED) * value
        weight = SMOOTHED * weight + (1 - SMOOTHED)
        means.append((step, mean / weight))
    return means


def write_report(folder: Path, *, plan: str) -> Path:
    """Write report.html from what the directory holds; `plan` is what was said before the run began."""
    facts = facts_of(folder)
    pictures = [
        (path.stem, data_uri(thumbnail(read_picture(path), 640), quality=85)) for path in facts.samples
    ]
    page = html_page("urae.training", "run.html.j2", facts=facts, plan=plan, pictures=pictures)
    write_text(folder / "report.html", page)
    return folder / "report.html"

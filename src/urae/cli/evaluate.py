"""`urae evaluate`: folders of pictures in, a table with intervals out, in any of four forms."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from urae import metrics as measuring
from urae.cli.named import named
from urae.cli.options import Fields
from urae.cli.printed import say, say_report
from urae.io import Progress, check_can_write
from urae.metrics.declarations import DEFAULT_METRICS, METRICS

if TYPE_CHECKING:
    from urae.metrics import EvaluationPlan
    from urae.metrics.pictures import Prompts
    from urae.statistics import Table

__all__ = ["evaluate"]

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "urae" / "features"


def evaluate(
    candidate: Annotated[list[str], typer.Option(help="name=FOLDER of pictures; repeat for several.")],
    request: Annotated[
        dict[str, Any],
        Fields(measuring.EvaluationRequest, only=("baseline", "crops", "device", "seed")),
    ],
    metrics: Annotated[
        str,
        typer.Option(
            help=f"Comma-separated, of {', '.join(METRICS)}; name@REFERENCE where there are several."
        ),
    ] = ",".join(DEFAULT_METRICS),
    against: Annotated[
        list[str], typer.Option(help="FOLDER, or name=FOLDER, of reference pictures; repeat for several.")
    ] = [],  # noqa: B006
    prompts: Annotated[
        str,
        typer.Option(
            help="png: in each PNG, or a collection's manifest; names: none, each name counts as one; or a file of "
            '{"id": name, "prompt": text}.'
        ),
    ] = "png",
    weights: Annotated[list[str], typer.Option(help="metric=PATH of its weights; repeat for several.")] = [],  # noqa: B006
    out: Annotated[
        list[Path], typer.Option(help="File for the table: .md, .json or .html; repeat for several.")
    ] = [],  # noqa: B006
    cache: Annotated[
        Path,
        typer.Option(help="Folder that keeps features.", show_default="urae/features in the user's cache"),
    ] = CACHE,
    batch_size: Annotated[int, typer.Option(min=1, help="Pictures in memory at a time.")] = 8,
) -> str:
    """Measure folders of pictures and compare them, prompt by prompt.

    Measured values are kept: the same command again costs nothing, and one that was stopped continues.

    Example: urae evaluate --candidate ours=out/ours --candidate base=out/base --baseline base --out table.md
    """
    unknown = [file for file in out if file.suffix not in (".md", ".json", ".html")]
    if unknown:
        raise ValueError(f"out is {unknown[0]}: expected a name that ends in .md, .json or .html")
    for file in out:
        check_can_write(file)
    plan = measuring.plan_evaluation(
        named(candidate, "candidate"),
        _prompts(prompts),
        metrics=[name.strip() for name in metrics.split(",")],
        against=named([_with_name(text) for text in against], "against"),
        weights=named(weights, "weights"),
        **request,
    )
    with Progress("measuring", total=plan.num_pictures) as progress:
        table = plan.run(cache=cache, batch_size=batch_size, on_picture=progress.advance)
    say_report(table.to_markdown())
    for file in out:
        say(f"wrote {_save(table, plan, file)}")
    return table.to_json()


def _save(table: Table, plan: EvaluationPlan, file: Path) -> Path:
    return table.save(file, pictures=plan.pictures() if file.suffix == ".html" else None)


def _prompts(text: str) -> Prompts:
    if text in ("png", "names"):
        return text
    if not Path(text).is_file():
        raise ValueError(f"prompts is {text!r}: expected png, names, or a file of prompts")
    return Path(text)


def _with_name(text: str) -> str:
    """A folder without a name has its own."""
    return text if "=" in text else f"{Path(text).resolve().name}={text}"

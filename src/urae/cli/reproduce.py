"""`urae reproduce`: a table of the paper, from its plan to numbers beside the paper's."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from urae import reproduce as reproducing
from urae.judge.plan import Cost
from urae.reproduce import PLANS

__all__ = ["reproduce"]

console = Console(highlight=False, soft_wrap=True, markup=False)


def reproduce(
    table: Annotated[str, typer.Argument(help=f"{', '.join(PLANS)}, or a YAML file.")],
    inputs: Annotated[
        list[str] | None,
        typer.Argument(help="What you have, as key=value, such as models.flux=FOLDER prompts.hpd=hpd.jsonl."),
    ] = None,
    miniature: Annotated[
        bool, typer.Option("--miniature", help="The same experiment on the miniature, which needs nothing.")
    ] = False,
    row: Annotated[list[str] | None, typer.Option(help="Only this row; repeat for several.")] = None,
    column: Annotated[list[str] | None, typer.Option(help="Only this column; repeat for several.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for everything.", show_default="out/TABLE")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show every cell and its state.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask a judge without asking first.")] = False,
) -> None:
    """Reproduce a table of the paper: train, draw and measure what is missing, and print it beside the paper's numbers.

    Stopped at any moment, the same command goes on where it was.

    Example: urae reproduce table1 --miniature --dry-run
    """
    plan = reproducing.read_plan(table, _inputs(inputs or []), miniature=miniature)
    plan = plan.only(row or [], column or [])
    folder = out or Path("out") / (f"{plan.name}-miniature" if miniature else plan.name)
    if dry_run:
        for state in reproducing.survey(plan, folder):
            console.print(f"{state.part}: {state.name}: {state.state}")
        for missing in reproducing.needs(plan, folder):
            console.print(f"missing: {missing}")
        return
    result = reproducing.reproduce(plan, folder, on_cost=lambda cost, judge: _agree(cost, judge, yes))
    console.print(result.to_markdown())
    for suffix in ("md", "json"):
        console.print(f"wrote {folder / f'{plan.name}.{suffix}'}")


def _agree(cost: Cost, judge: str, yes: bool) -> None:
    console.print(
        f"judge: {judge}, {cost.num_requests} questions, tokens, estimated: {cost.input_tokens} in, "
        f"{cost.output_tokens} out"
    )
    if not yes:
        typer.confirm("Ask them?", abort=True)


def _inputs(given: list[str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in given]
    for text, (key, equals, _) in zip(given, pairs, strict=True):
        if not (key and equals):
            raise ValueError(
                f"{text!r} is no input of a plan: expected key=value, such as models.flux=FOLDER"
            )
    return {key: value for key, _, value in pairs}

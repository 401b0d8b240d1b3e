"""`urae reproduce`: a table of the paper, from its plan to numbers beside the paper's."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from urae import reproduce as reproducing
from urae.cli.named import named
from urae.cli.printed import say
from urae.io import check_can_write
from urae.reproduce.plan import PLANS

if TYPE_CHECKING:
    from urae.judge import Cost

__all__ = ["reproduce"]


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
    plan = reproducing.read_plan(
        table,
        _given(inputs or []),
        miniature=miniature,
    )
    plan = plan.only(row or [], column or [])
    folder = out or Path("out") / (f"{plan.name}-miniature" if miniature else plan.name)
    if dry_run:
        for state in reproducing.survey(plan, folder):
            say(f"{state.part}: {state.name}: {state.state}")
        for missing in reproducing.needs(plan, folder):
            say(f"missing: {missing}")
        return
    check_can_write(folder, folder=True)
    result = reproducing.reproduce(plan, folder, on_cost=lambda cost, judge: _agree(cost, judge, yes))
    say(result.to_markdown())
    for suffix in ("md", "json"):
        say(f"wrote {folder / f'{plan.name}.{suffix}'}")


def _agree(cost: Cost, judge: str, yes: bool) -> None:
    say(
        f"judge: {judge}, {cost.num_requests} questions, tokens, estimated: {cost.input_tokens} in, "
        f"{cost.output_tokens} out"
    )
    if not yes:
        typer.confirm("Ask them?", abort=True)


def _given(inputs: list[str]) -> dict[str, str]:
    return named(inputs, "input", value="VALUE, such as models.flux=FOLDER", read=str)

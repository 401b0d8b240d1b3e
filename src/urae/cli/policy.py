"""`urae policy`: choose a resolution policy by measuring the model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from urae import fitting
from urae.cli.named import named
from urae.cli.options import Fields
from urae.cli.printed import say, say_report
from urae.cli.verbs import Commands
from urae.fitting.request import FittingRequest
from urae.generation.asking import ModelRequest
from urae.io import check_can_write, write_text
from urae.resolution import ResolutionPolicy

__all__ = ["app"]

app = Commands(no_args_is_help=True, help="Choose a resolution policy by measuring the model itself.")


@app.callback()
def policy() -> None:
    """Choose a resolution policy by measuring the model itself."""


@app.command(
    epilog="Example: urae policy fit --model mini --size 256 --images mini:clean:24 --out fitted && "
    'urae generate "a flat tiger on a wood background" --size 256x256 --policy fitted/policy.json'
)
def fit(
    model: Annotated[dict[str, Any], Fields(ModelRequest, only=("model", "base", "dtype"))],
    request: Annotated[dict[str, Any], Fields(FittingRequest)],
    candidate: Annotated[
        list[str], typer.Option(help="A policy of your own as name=FILE.json; repeat for several.")
    ] = [],  # noqa: B006
    out: Annotated[Path, typer.Option(help="Folder for policy.json, the report and the errors.")] = Path(
        "fitted"
    ),
) -> str:
    """Measure the unadapted model's velocity error on large pictures under each policy, and write the best one.

    Nothing is drawn or trained. Stopped at any moment, the same command continues where it was.
    """
    check_can_write(out, folder=True)
    asked = FittingRequest(**request)
    own = named(candidate, "candidate", value="FILE.json", read=ResolutionPolicy.read)
    with ModelRequest(**model).opened() as (pipe, _):
        plan = fitting.plan_fitting(pipe, asked, more=own, out=out)
        say(plan)
        result = fitting.run_fitting(plan, out / "errors.jsonl")
    table = result.to_markdown()
    say_report(table)
    texts = {
        "report.html": result.to_html(),
        "report.md": table,
        "fit.json": result.to_json(),
        "policy.json": f"{result.policy.to_json()}\n",
    }
    for name, text in texts.items():
        write_text(out / name, text)
        say(f"wrote {out / name}")
    return result.to_json()

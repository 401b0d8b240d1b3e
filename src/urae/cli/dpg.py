"""`urae dpg`: folders of pictures and a file of questions in, how much of each prompt is there out."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from urae import dpg as benchmark
from urae import judge
from urae.cli.named import named, options_from_json
from urae.cli.options import Fields
from urae.cli.printed import say, say_report, tell_unused
from urae.cli.spending import Concurrency, DryRun, RequestOptions, tell_time
from urae.dpg.server import OPTIONS
from urae.io import Progress, check_can_write

if TYPE_CHECKING:
    from urae.dpg import Answerer, Dpg, DpgPlan

__all__ = ["dpg"]

ANSWERS = "answers.jsonl"


def dpg(
    candidate: Annotated[
        list[str], typer.Option(help="name=FOLDER with a picture <item id>.png of each prompt; repeat.")
    ],
    questions: Annotated[
        Path, typer.Option(help="csv file in the benchmark's format, such as dpg_bench.csv.")
    ],
    request: Annotated[dict[str, Any], Fields(benchmark.DpgRequest)],
    model: Annotated[
        str, typer.Option(help="Folder of an image-text model; with --server its name there; or mini.")
    ],
    server: Annotated[str, typer.Option(help="Base URL of any server that speaks chat completions.")] = "",
    out: Annotated[Path, typer.Option(help="Folder for answers, scores and tables.")] = Path("dpg"),
    device: Annotated[str, typer.Option(help="For a local model: auto, cpu, cuda.")] = "auto",
    key_variable: Annotated[
        str, typer.Option(help="Environment variable that holds the server's API key.")
    ] = "OPENAI_API_KEY",
    option: RequestOptions = [],  # noqa: B006
    concurrency: Concurrency = 4,
    dry_run: DryRun = False,
) -> str | dict[str, Any]:
    """Score pictures by DPG-Bench: do they show what dense prompts ask for?

    Stopped at any moment, the same command continues where it was.

    Example: urae dpg --candidate ours=out/ours --questions dpg_bench.csv --model models/llava-1.5-7b-hf
    """
    check_can_write(out, folder=True)
    answerer = _answerer(model, server, device, key_variable, option, concurrency)
    plan = benchmark.plan_dpg(
        named(candidate, "candidate", value="FOLDER"),
        benchmark.read_questions(questions),
        answerer,
        **request,
    )
    answers = judge.read_answers(out / ANSWERS)
    num_open = plan.num_open(answers)
    say(f"answered by: {answerer.name}")
    say(f"pictures: {len(plan.every)} of {len(plan.tiles)} candidates, questions to ask: {num_open}")
    hours = tell_time(num_open, chain.from_iterable(answers.values()), at_a_time=concurrency if server else 0)
    tell_unused("scored", plan.unused)
    if dry_run:
        return {"num_requests": num_open, "hours": hours}
    result = _ask(plan, out / ANSWERS, num_open)
    _write(result, plan, out)
    return result.to_json()


def _answerer(
    model: str, server: str, device: str, key_variable: str, options: list[str], concurrency: int
) -> Answerer:
    if server:
        sent = options_from_json(options, **OPTIONS)
        endpoint = judge.Endpoint(
            model=model, base_url=server, key_variable=key_variable, options=sent, schema=False
        )
        return benchmark.ServerModel(endpoint=endpoint, concurrency=concurrency)
    if options:
        raise ValueError(
            f"the option {options[0]!r} has no effect without a server: give its URL with --server"
        )
    return benchmark.SceneModel() if model == "mini" else benchmark.LocalModel(Path(model), device)


def _ask(plan: DpgPlan, journal: Path, num_open: int) -> Dpg:
    with Progress("asking", total=num_open) as progress:
        return benchmark.dpg_bench(plan, journal=journal, on_answer=progress.advance)


def _write(result: Dpg, plan: DpgPlan, out: Path) -> None:
    say_report(result.to_markdown())
    for file in result.save(out, plan):
        say(f"wrote {file}")

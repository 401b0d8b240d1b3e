"""`urae dpg`: folders of pictures and a file of questions in, how much of each prompt is there out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.progress import Progress

from urae import dpg as benchmark
from urae.dpg.answerer import Answerer
from urae.dpg.benchmark import Dpg, DpgPlan
from urae.dpg.model import LocalModel
from urae.dpg.scenes import SceneModel
from urae.dpg.server import OPTIONS, ServerModel
from urae.judge.endpoint import Endpoint
from urae.judge.journal import read_answers

__all__ = ["dpg"]

console = Console(highlight=False, soft_wrap=True, markup=False)

ANSWERS = "answers.jsonl"


def dpg(
    candidate: Annotated[
        list[str], typer.Option(help="name=FOLDER with a picture <item id>.png of each prompt; repeat.")
    ],
    questions: Annotated[
        Path, typer.Option(help="csv file in the benchmark's format, such as dpg_bench.csv.")
    ],
    model: Annotated[
        str, typer.Option(help="Folder of an image-text model; with --server its name there; or mini.")
    ],
    server: Annotated[str, typer.Option(help="Base URL of any server that speaks chat completions.")] = "",
    out: Annotated[Path, typer.Option(help="Folder for answers, scores and tables.")] = Path("dpg"),
    grid: Annotated[
        int, typer.Option(min=1, help="Pictures in a row of each file; the benchmark itself has 2.")
    ] = 1,
    compat: Annotated[
        Literal["fixed", "official"],
        typer.Option(help="The table's rule: as meant, or as the script has it."),
    ] = "fixed",
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Leave prompts out that a candidate has no picture of.")
    ] = False,
    device: Annotated[str, typer.Option(help="For a local model: auto, cpu, cuda.")] = "auto",
    key_variable: Annotated[
        str, typer.Option(help="Environment variable that holds the server's API key.")
    ] = "OPENAI_API_KEY",
    option: Annotated[
        list[str] | None, typer.Option(help="key=value for each request, as JSON; null takes one out.")
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests at a time.")] = 4,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be asked.")] = False,
) -> None:
    """Score pictures by DPG-Bench: do they show what dense prompts ask for?

    Stopped at any moment, the same command goes on where it was.

    Example: urae dpg --candidate ours=out/ours --questions dpg_bench.csv --model models/llava-1.5-7b-hf
    """
    answerer = _answerer(model, server, device, key_variable, option or [], concurrency)
    plan = benchmark.plan_dpg(
        _candidates(candidate),
        benchmark.read_questions(questions),
        answerer,
        grid=grid,
        compat=compat,
        allow_missing=allow_missing,
    )
    num_open = plan.num_open(read_answers(out / ANSWERS))
    console.print(f"answered by: {answerer.name}")
    console.print(
        f"pictures: {len(plan.every)} of {len(plan.tiles)} candidates, questions to ask: {num_open}"
    )
    for name, files in plan.unused.items():
        if files:
            console.print(
                f"not scored, as no prompt names them: {len(files)} pictures of {name}, such as {files[0]}"
            )
    if not dry_run:
        _write(_ask(plan, out / ANSWERS, num_open), plan, out)


def _answerer(
    model: str, server: str, device: str, key_variable: str, options: list[str], concurrency: int
) -> Answerer:
    if server:
        endpoint = Endpoint(
            model=model, base_url=server, key_variable=key_variable, options=_options(options), schema=False
        )
        return ServerModel(endpoint=endpoint, concurrency=concurrency)
    if options:
        raise ValueError(
            f"the option {options[0]!r} has no effect without a server: give its URL with --server"
        )
    return SceneModel() if model == "mini" else LocalModel(Path(model), device)


def _ask(plan: DpgPlan, journal: Path, num_open: int) -> Dpg:
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("asking", total=num_open)
        return benchmark.dpg_bench(plan, journal=journal, on_answer=lambda: progress.advance(task))


def _write(result: Dpg, plan: DpgPlan, out: Path) -> None:
    console.print(result.to_markdown())
    for file in result.save(out, plan):
        console.print(f"wrote {file}")


def _candidates(given: list[str]) -> dict[str, Path]:
    folders = {name: Path(folder) for name, _, folder in (text.partition("=") for text in given) if folder}
    if len(folders) < len(given) or "" in folders:
        raise ValueError(f"candidates are {', '.join(given)}: expected name=FOLDER, each name once")
    return folders


def _options(given: list[str]) -> dict[str, Any]:
    try:
        changes = {name: json.loads(value) for name, _, value in (text.partition("=") for text in given)}
    except ValueError as error:
        raise ValueError(f"options are {', '.join(given)}: expected key=value with JSON values") from error
    return {name: value for name, value in {**OPTIONS, **changes}.items() if value is not None}

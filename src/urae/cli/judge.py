"""`urae judge`: folders of pictures in, what a vision-language model prefers out; the cost is shown first."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from urae import judge as judging
from urae.cli.named import named, options_from_json
from urae.cli.options import Fields
from urae.cli.printed import say, say_report, tell_unused
from urae.cli.spending import Concurrency, DryRun, Prices, RequestOptions, Yes, agreed, tell_time
from urae.io import Progress, check_can_write, write_text
from urae.judge.endpoint import OPTIONS
from urae.judge.instructions import OWN

if TYPE_CHECKING:
    from urae.judge import Cost, JudgingPlan, Verdicts

__all__ = ["judge"]

ANSWERS = "answers.jsonl"


def judge(
    candidate: Annotated[
        list[str], typer.Option(help="name=FOLDER with a picture <id>.png of each prompt; repeat.")
    ],
    prompts: Annotated[
        Path, typer.Option(help='Lines of {"id": "lighthouse", "prompt": "a lighthouse at dusk"}.')
    ],
    request: Annotated[dict[str, Any], Fields(judging.JudgingRequest)],
    endpoint: Annotated[dict[str, Any], Fields(judging.Endpoint)],
    view: Annotated[dict[str, Any], Fields(judging.View)],
    prices: Annotated[dict[str, Any], Fields(Prices)],
    out: Annotated[Path, typer.Option(help="Folder for answers, verdicts and tables.")] = Path("judged"),
    instructions: Annotated[Path, typer.Option(help="YAML file with other words.", show_default=False)] = OWN,
    option: RequestOptions = [],  # noqa: B006
    concurrency: Concurrency = 4,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> str | dict[str, Any]:
    """Ask a vision-language model which pictures it prefers, and for scores from 0 to 100.

    Stopped at any moment, the same command continues where it was.

    Example: urae judge --candidate ours=out/ours --candidate base=out/base --prompts prompts.jsonl --model gpt-4o
    """
    check_can_write(out, folder=True)
    plan = judging.plan_judging(
        named(candidate, "candidate", value="FOLDER"),
        judging.prompts_by_id(prompts),
        endpoint=judging.Endpoint(options=options_from_json(option, **OPTIONS), **endpoint),
        **request,
        instructions=judging.read_instructions(instructions),
        view=judging.View(**view),
    )
    answers = judging.read_answers(out / ANSWERS)
    cost = plan.cost(answers)
    _show(plan, cost)
    hours = tell_time(cost.num_requests, chain.from_iterable(answers.values()), at_a_time=concurrency)
    Prices(**prices).tell(cost)
    if agreed("Ask them?", costs=cost.num_requests, dry_run=dry_run, yes=yes):
        verdicts = _ask(plan, out / ANSWERS, cost, concurrency)
        _write(verdicts, plan, out)
        return verdicts.to_json()
    return {**vars(cost), "num_requests": cost.num_requests, "hours": hours}


def _show(plan: JudgingPlan, cost: Cost) -> None:
    say(plan)
    say(f"questions: {cost.num_questions}, answered before: {cost.num_answered}, to ask: {cost.num_requests}")
    say(f"tokens, estimated: {cost.input_tokens} in, {cost.output_tokens} out")
    tell_unused("judged", plan.unused)


def _ask(plan: JudgingPlan, journal: Path, cost: Cost, concurrency: int) -> Verdicts:
    with Progress("asking", total=cost.num_requests) as progress:
        return judging.judge(plan, journal=journal, concurrency=concurrency, on_question=progress.advance)


def _write(verdicts: Verdicts, plan: JudgingPlan, out: Path) -> None:
    text = verdicts.to_markdown()
    say_report(text)
    files = [out / "verdicts.md", out / "verdicts.json"]
    for file, content in zip(files, (text, verdicts.to_json()), strict=True):
        write_text(file, content)
    if verdicts.scores:
        # Of several pictures of one prompt the page shows the first.
        pictures: dict[str, dict[str, Path]] = {name: {} for name in plan.candidates}
        for item in reversed(plan.items):
            for name, path in item.pictures.items():
                pictures[name][item.prompt] = path
        files.append(verdicts.scores.save(out / "scores.html", pictures=pictures))
    for file in files:
        say(f"wrote {file}")

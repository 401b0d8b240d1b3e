"""`urae judge`: folders of pictures in, what a vision-language model prefers out; the cost is shown first."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from urae import judge as judging
from urae.cli.named import named, options_from_json
from urae.cli.printed import say
from urae.io import OPENAI, Progress, check_can_write, write_text
from urae.judge.endpoint import OPTIONS
from urae.judge.instructions import KINDS, OWN
from urae.judge.plan import ASPECTS

if TYPE_CHECKING:
    from urae.judge import Cost, JudgingPlan, Verdicts

__all__ = ["judge"]

ANSWERS = "answers.jsonl"
ALL_ASPECTS = list(ASPECTS)
BOTH_KINDS: list[str] = list(KINDS)


def judge(
    candidate: Annotated[
        list[str], typer.Option(help="name=FOLDER with a picture <id>.png of each prompt; repeat.")
    ],
    prompts: Annotated[
        Path, typer.Option(help='Lines of {"id": "lighthouse", "prompt": "a lighthouse at dusk"}.')
    ],
    model: Annotated[str, typer.Option(help="Name of the judge at its server.")],
    out: Annotated[Path, typer.Option(help="Folder for answers, verdicts and tables.")] = Path("judged"),
    base_url: Annotated[
        str, typer.Option(help="Any server that speaks chat completions with pictures.")
    ] = OPENAI,
    key_variable: Annotated[
        str, typer.Option(help="Environment variable that holds the API key.")
    ] = "OPENAI_API_KEY",
    aspect: Annotated[
        list[str], typer.Option(help="Repeat for several; all of them by default.")
    ] = ALL_ASPECTS,
    kind: Annotated[list[str], typer.Option(help="pair, score, or both by repeating.")] = BOTH_KINDS,
    against: Annotated[
        str, typer.Option(help="Compare the others with this candidate only, not all pairs.")
    ] = "",
    instructions: Annotated[Path, typer.Option(help="YAML file with other words.", show_default=False)] = OWN,
    max_side: Annotated[int, typer.Option(min=1, help="Whole pictures are reduced to fit, pixels.")] = 2048,
    crop: Annotated[int, typer.Option(min=1, help="Side of the native crops for detail, pixels.")] = 768,
    crops: Annotated[int, typer.Option(min=1, help="Native crops of each picture.")] = 3,
    option: Annotated[
        list[str] | None, typer.Option(help="key=value for each request, as JSON; null takes one out.")
    ] = None,
    schema: Annotated[bool, typer.Option(help="Hold answers to a JSON schema; not every server can.")] = True,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests at a time.")] = 4,
    timeout: Annotated[float, typer.Option(help="Seconds for one request.")] = 120.0,
    retries: Annotated[int, typer.Option(min=0, help="Of a request after 429, 5xx or a timeout.")] = 8,
    price_in: Annotated[float, typer.Option(help="Price of a million input tokens; 0 shows no price.")] = 0.0,
    price_out: Annotated[float, typer.Option(help="Price of a million output tokens.")] = 0.0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be asked and what it costs.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Spend without asking.")] = False,
) -> None:
    """Ask a vision-language model which pictures it prefers, and for scores from 0 to 100.

    Stopped at any moment, the same command goes on where it was.

    Example: urae judge --candidate ours=out/ours --candidate base=out/base --prompts prompts.jsonl --model gpt-4o
    """
    check_can_write(out, folder=True)
    endpoint = judging.Endpoint(
        model=model,
        base_url=base_url,
        key_variable=key_variable,
        options=options_from_json(option or [], **OPTIONS),
        schema=schema,
        timeout=timeout,
        retries=retries,
    )
    plan = judging.plan_judging(
        named(candidate, "candidate", value="FOLDER"),
        judging.read_prompts(prompts),
        endpoint=endpoint,
        aspects=aspect,
        kinds=kind,  # type: ignore[arg-type]
        against=against,
        instructions=judging.read_instructions(instructions),
        view=judging.View(max_side=max_side, crop=crop, num_crops=crops),
    )
    cost = plan.cost(judging.read_answers(out / ANSWERS))
    _show(plan, cost, price_in, price_out)
    if dry_run:
        return
    if cost.num_requests and not yes:
        typer.confirm("Ask them?", abort=True)
    _write(_ask(plan, out / ANSWERS, cost, concurrency), plan, out)


def _show(plan: JudgingPlan, cost: Cost, price_in: float, price_out: float) -> None:
    say(f"judge: {plan.endpoint.model} at {plan.endpoint.base_url}")
    say(
        f"prompts: {len(plan.items)}, candidates: {len(plan.candidates)}, pairs: {len(plan.pairs)}, each in both "
        f"orders, aspects: {', '.join(plan.aspects)}"
    )
    say(f"questions: {cost.num_questions}, answered before: {cost.num_answered}, to ask: {cost.num_requests}")
    say(f"tokens, estimated: {cost.input_tokens} in, {cost.output_tokens} out")
    if price_in or price_out:
        price = cost.price(per_million_in=price_in, per_million_out=price_out)
        say(f"price, estimated: {price:.2f}")
    for name, files in plan.unused.items():
        if files:
            say(f"not judged, as no prompt names them: {len(files)} pictures of {name}, such as {files[0]}")


def _ask(plan: JudgingPlan, journal: Path, cost: Cost, concurrency: int) -> Verdicts:
    with Progress("asking", total=cost.num_requests) as progress:
        return judging.judge(plan, journal=journal, concurrency=concurrency, on_question=progress.advance)


def _write(verdicts: Verdicts, plan: JudgingPlan, out: Path) -> None:
    report = verdicts.to_markdown()
    say(report)
    files = [out / "verdicts.md", out / "verdicts.json"]
    for file, text in zip(files, (report, verdicts.to_json()), strict=True):
        write_text(file, text)
    if verdicts.scores:
        # Of several pictures of one prompt the page shows the first.
        pictures: dict[str, dict[str, Path]] = {name: {} for name in plan.candidates}
        for item in reversed(plan.items):
            for name, path in item.pictures.items():
                pictures[name][item.prompt] = path
        files.append(verdicts.scores.save(out / "scores.html", pictures=pictures))
    for file in files:
        say(f"wrote {file}")

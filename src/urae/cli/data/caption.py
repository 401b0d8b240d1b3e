"""`urae data caption`: detailed captions from a vision-language model, into the manifest; the cost is shown first."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from urae.cli.named import settings_from_yaml
from urae.cli.options import Fields
from urae.cli.printed import say
from urae.cli.spending import Concurrency, DryRun, Prices, Yes, agreed, tell_time
from urae.collecting import Captioned, Captioner, plan_captions, run_captions
from urae.collecting.captioner import OPTIONS, own_instruction
from urae.errors import UraeError
from urae.io import read_journal, read_text

__all__ = ["caption"]


def caption(
    source: Annotated[
        Path, typer.Argument(help="A manifest, or a folder of images; captions come into its manifest.")
    ],
    captioner: Annotated[dict[str, Any], Fields(Captioner, without=("instruction",))],
    prices: Annotated[dict[str, Any], Fields(Prices)],
    instruction: Annotated[
        Path | None, typer.Option(help="Text file with other words.", show_default="our own")
    ] = None,
    option: Annotated[list[str], typer.Option(help="key=value for each request; null takes one out.")] = [],  # noqa: B006
    renew: Annotated[bool, typer.Option("--renew", help="Also images that have a detailed caption.")] = False,
    concurrency: Concurrency = 4,
    picture_tokens: Annotated[int, typer.Option(min=1, help="Tokens of one image, for the estimate.")] = 765,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Describe images in detail, by a vision-language model.

    Stopped or killed at any moment, the same command continues where it was.

    Example: urae data caption data/2k/manifest.jsonl --model gpt-4o --price-in 2.5 --price-out 10 --dry-run
    """
    options = {**OPTIONS, **settings_from_yaml(option, texts=())}
    asked = Captioner(
        instruction=read_text(instruction).strip() if instruction else own_instruction(),
        options={name: value for name, value in options.items() if value is not None},
        **captioner,
    )
    plan = plan_captions(source, asked, renew=renew, tokens_per_picture=picture_tokens)
    say(plan)
    tell_time(plan.num_requests, read_journal(plan.journal), at_a_time=concurrency)
    Prices(**prices).tell(plan)
    if agreed("Ask them?", costs=plan.num_requests, dry_run=dry_run, yes=yes):
        _report(run_captions(plan, concurrency=concurrency))


def _report(captioned: Captioned) -> None:
    if captioned.missing:
        say(f"without a detailed caption: {len(captioned.missing)}")
    for file, reason in captioned.missing.items():
        say(f"  {file}: {reason}")
    if captioned.usage:
        counts = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in captioned.usage.items())
        say(f"counted by the server: {counts}")
    say(f"wrote {captioned.manifest}: {captioned.num_written} detailed captions")
    if captioned.missing and not captioned.num_written:
        raise UraeError(f"none of {len(captioned.missing)} captions came: the messages above say why")

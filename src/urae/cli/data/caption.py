"""`urae data caption`: detailed captions from a vision-language model, into the manifest; the cost is shown first."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from urae.cli.named import settings_from_yaml
from urae.cli.printed import say
from urae.collecting import Captioned, Captioner, CaptionPlan, plan_captions
from urae.collecting import caption as caption_images
from urae.collecting.captioner import OPTIONS, own_instruction
from urae.io import OPENAI, read_text

__all__ = ["caption"]


def caption(
    source: Annotated[
        Path, typer.Argument(help="A manifest, or a folder of images; captions come into its manifest.")
    ],
    model: Annotated[str, typer.Option(help="Name of the vision-language model at its server.")],
    base_url: Annotated[
        str, typer.Option(help="Any server that speaks chat completions with pictures.")
    ] = OPENAI,
    key_variable: Annotated[
        str, typer.Option(help="Environment variable that holds the API key.")
    ] = "OPENAI_API_KEY",
    instruction: Annotated[
        Path | None, typer.Option(help="Text file with other words.", show_default="our own")
    ] = None,
    max_side: Annotated[int, typer.Option(min=64, help="Images are reduced to fit, px.")] = 1024,
    option: Annotated[list[str], typer.Option(help="key=value for each request; null takes one out.")] = [],  # noqa: B006
    renew: Annotated[bool, typer.Option("--renew", help="Also images that have a detailed caption.")] = False,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests at a time.")] = 4,
    timeout: Annotated[float, typer.Option(help="Seconds for one request.")] = 120.0,
    retries: Annotated[int, typer.Option(min=0, help="Of a request after 429, 5xx or a timeout.")] = 8,
    picture_tokens: Annotated[int, typer.Option(min=1, help="Tokens of one image, for the estimate.")] = 765,
    price_in: Annotated[float, typer.Option(help="Price of a million input tokens; 0 shows no price.")] = 0.0,
    price_out: Annotated[float, typer.Option(help="Price of a million output tokens.")] = 0.0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be asked and its cost.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Spend without asking.")] = False,
) -> None:
    """Describe images in detail, by a vision-language model.

    Stopped or killed at any moment, the same command goes on where it was.

    Example: urae data caption data/2k/manifest.jsonl --model gpt-4o --price-in 2.5 --price-out 10 --dry-run
    """
    options = {**OPTIONS, **settings_from_yaml(option, texts=())}
    captioner = Captioner(
        model=model,
        instruction=read_text(instruction).strip() if instruction else own_instruction(),
        max_side=max_side,
        options={name: value for name, value in options.items() if value is not None},
        base_url=base_url,
        key_variable=key_variable,
        timeout=timeout,
        retries=retries,
    )
    plan = plan_captions(source, captioner, renew=renew, tokens_per_picture=picture_tokens)
    _show(plan, captioner, price_in, price_out)
    if dry_run:
        return
    if plan.num_requests and not yes:
        typer.confirm("Ask them?", abort=True)
    _report(caption_images(source, captioner, renew=renew, concurrency=concurrency))


def _show(plan: CaptionPlan, captioner: Captioner, price_in: float, price_out: float) -> None:
    say(f"captioner: {captioner.model} at {captioner.base_url}, images reduced to {captioner.max_side} px")
    say(
        f"images: {plan.num_images}, with a detailed caption: {plan.num_captioned}, answered before: "
        f"{plan.num_answered}, to ask: {plan.num_requests}"
    )
    say(f"tokens, estimated: {plan.input_tokens} in, {plan.output_tokens} out")
    if price_in or price_out:
        price = plan.price(per_million_in=price_in, per_million_out=price_out)
        say(f"price, estimated: {price:.2f}")


def _report(captioned: Captioned) -> None:
    if captioned.missing:
        say(f"without a detailed caption: {len(captioned.missing)}")
    for file, reason in captioned.missing.items():
        say(f"  {file}: {reason}")
    if captioned.usage:
        counts = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in captioned.usage.items())
        say(f"counted by the server: {counts}")
    say(f"wrote {captioned.manifest}: {captioned.num_written} detailed captions")

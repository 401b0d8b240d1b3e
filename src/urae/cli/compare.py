"""`urae compare`: prompts and seeds, each drawn several ways, beside pictures of other models; a sheet, and a table of
what each costs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from urae import generation
from urae.cli.generate import PromptFile, Prompts, asked_for
from urae.cli.named import named
from urae.cli.options import Fields, given_options
from urae.cli.printed import console, say
from urae.comparing import ComparisonSheet, candidate_pictures, conditions, measures
from urae.generation.asking import DrawingRequest, ModelRequest
from urae.io import Progress, check_can_write, picture_size, plain
from urae.pages import is_reduced

if TYPE_CHECKING:
    from urae.adapters import Adapter, Stack
    from urae.generation import DrawingPlan, Way

__all__ = ["compare"]

STOCK, NOTHING = "stock", "none"
"""The direct method without a policy: the pipeline as it comes, only larger. And no way at all."""
DEFAULT_WAYS = [STOCK, "direct", "tiled", "sdedit", "imax", "hiflow"]
SHARED = ("size", "seed", "policy", "steps", "offload", "decode")
"""What all ways have in common."""
WITHOUT_WAYS = {"prompts", "prompt_file", "seed", "method", "candidate", "crop", "out", "json"}
"""What has an effect where nothing is drawn."""


def compare(
    ctx: typer.Context,
    model: Annotated[dict[str, Any], Fields(ModelRequest)],
    drawing: Annotated[dict[str, Any], Fields(DrawingRequest, only=SHARED, size="256x256")],
    prompts: Prompts = None,
    prompt_file: PromptFile = None,
    method: Annotated[
        list[str],
        typer.Option(
            help="A method, or method:option=value,option=value; stock is direct without a policy; none draws nothing "
            "and shows the candidates alone."
        ),
    ] = DEFAULT_WAYS,
    candidate: Annotated[
        list[str],
        typer.Option(
            help="name=FOLDER of pictures to show beside them, of any model: those of urae by prompt and seed, others "
            "by the ids of --prompts; repeat for several."
        ),
    ] = [],  # noqa: B006
    crop: Annotated[
        list[str],
        typer.Option(
            help="X,Y: where a part is shown pixel by pixel, as shares of width and height; repeat for several.",
            show_default="the middle, 0.5,0.5",
        ),
    ] = [],  # noqa: B006
    native_steps: Annotated[
        int | None, typer.Option(help="Denoising steps of the native pass.", show_default="each method's")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the pictures, the sheet and the table.")] = Path(
        "compared"
    ),
) -> dict[str, Any]:
    """Draw prompts several ways: a sheet of pictures, and what each way costs; an earlier one is never replaced.

    With an adapter, each method is drawn without it and with it.

    Example: urae compare "a flat tiger on a wood background" --size 256x256 --method direct --method imax:weight=0.5

    Beside other models: urae compare --prompts prompts.txt --seed 0-1 --candidate sana=out/sana --crop 0.4,0.3
    """
    check_can_write(out, folder=True)
    texts = asked_for(prompts, prompt_file)
    listed = list(texts.values()) if isinstance(texts, dict) else texts
    asked, opening = DrawingRequest(prompt=listed, **drawing), ModelRequest(**model)
    methods = _methods(method, native_steps, ctx)
    found = candidate_pictures(named(candidate, "candidate", value="FOLDER"), texts, asked.seeds)
    places = [_place(text) for text in crop] or [(0.5, 0.5)]
    widths = [picture_size(path)[0] for files in found.values() for path in files]
    size: Any = asked.size
    if crop and not any(map(is_reduced, [*widths, *([size[0]] if methods else [])])):
        raise ValueError("crop has no effect: the pictures are so small that they are shown whole")
    begun = json.dumps({**ctx.params, "prompts": listed}, default=str, sort_keys=True)
    sheet = ComparisonSheet(out=out, prompts=listed, seeds=asked.seeds, crops=places, begun=begun)
    sheet.check_new([label for label, _ in methods], found)  # before a large model is opened
    described: dict[str, Any] = {}
    if methods:
        with opening.opened() as (pipe, adapter):
            ways = _ways(methods, asked, adapter)
            sheet.check_new([way.label for way in ways], found)
            plan = generation.plan_drawing(pipe, asked)
            say(f"memory: {plan.memory}")
            described = _draw(plan, ways, sheet)
    for name, files in found.items():
        for number, path in enumerate(files):
            sheet.show_candidate(number, name, path)
    page, *others = sheet.save(described, note=generation.about(size) if methods else "")
    console.print(_table(sheet.rows))
    say(f"wrote {page}, {others[0]} and {others[1]}")
    return {**described, "pictures": sheet.rows}


def _methods(texts: Sequence[str], native_steps: int | None, ctx: typer.Context) -> list[tuple[str, Any]]:
    """The methods with their labels; none for the word alone."""
    if NOTHING in texts:
        if len(texts) > 1 or not ctx.params["candidate"]:
            raise ValueError("the method none shows candidates alone: give it alone, and some --candidate")
        if idle := sorted(given_options(ctx) - WITHOUT_WAYS):
            raise ValueError(
                f"{idle[0]} has no effect with the method none, which draws nothing: leave it out"
            )
        return []
    methods = [(text.replace(":", " "), _method(text, native_steps)) for text in texts]
    if native_steps is not None and not any(isinstance(way, generation.TwoPass) for _, way in methods):
        raise ValueError("native_steps has no effect: none of the methods has a native pass")
    return methods


def _place(text: str) -> tuple[float, float]:
    try:
        x, y = map(float, text.split(","))
        if 0 <= x <= 1 and 0 <= y <= 1:
            return x, y
    except ValueError:
        pass
    raise ValueError(f"crop is {text!r}: expected two shares from 0 to 1, such as 0.4,0.25")


def _draw(plan: DrawingPlan, ways: Sequence[Way], sheet: ComparisonSheet) -> dict[str, Any]:
    """Draw every part in every way, and say what all numbers depend on."""
    places = iter([number for number in range(len(sheet.parts)) for _ in ways])
    total = len(sheet.parts) * sum(way.num_steps for way in ways)
    with Progress("drawing", total=total) as progress:
        results = generation.compare_ways(
            plan.pipe,
            sheet.prompts,
            ways,
            size=plan.size,
            seed=sheet.seeds,
            measures=measures(),
            memory=plan.memory,
            on_step=progress.advance,
            on_result=lambda result: sheet.show(next(places), result),
        )
    return conditions(plan, results[0])


def _method(text: str, native_steps: int | None) -> Any:
    """The method of "name" or "name:option=value,option=value"."""
    name, _, options = text.partition(":")
    if name == STOCK and options:
        raise ValueError(f"{STOCK} has no options: leave {options!r} out")
    method = generation.method_from_texts(
        "direct" if name == STOCK else name, options.split(",") if options else []
    )
    has_native = isinstance(method, generation.TwoPass)
    return replace(method, native_steps=native_steps) if native_steps and has_native else method


def _ways(
    methods: Sequence[tuple[str, Any]], asked: DrawingRequest, adapter: Adapter | Stack | None
) -> list[Way]:
    """Each method without the adapter, and with it where it has an effect and a policy to run under."""
    policy: Any = asked.policy
    ways = []
    for label, method in methods:
        if label == STOCK:
            ways.append(generation.Way(label=label, method=method, policy="none", steps=asked.steps))
        elif method.steps == 0:
            ways.append(generation.Way(label=label, method=method))
        else:
            plain_way = generation.Way(label=label, method=method, policy=policy, steps=asked.steps)
            ways.append(plain_way)
            if adapter:
                several = "adapters" if hasattr(adapter, "parts") else "adapter"
                ways.append(replace(plain_way, label=f"{label} + {several}", adapter=adapter))
    return ways


def _table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """A line for each way and candidate: means over its pictures, and the largest memory."""
    table = Table()
    table.add_column("method", overflow="fold")
    for name in ("seconds", "native pass", "calls", "peak memory", *measures()):
        table.add_column(name, justify="right")
    for label in dict.fromkeys(row["label"] for row in rows):
        own = [row for row in rows if row["label"] == label]

        def mean(name: str, form: str, own: list[Any] = own) -> str:
            value = sum(row.get(name) or 0 for row in own) / len(own)
            return format(value, form) if value or name in measures() else ""

        peak = max((row.get("peak_bytes") or 0 for row in own), default=0)
        table.add_row(
            plain(label),
            mean("seconds", ".1f"),
            mean("native_seconds", ".1f"),
            mean("calls", ".0f"),
            f"{peak / 1e9:.2f} GB" if peak else "",
            *(mean(name, ".3f") for name in measures()),
        )
    return table

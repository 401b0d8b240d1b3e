"""`urae compare`: one prompt and seed drawn several ways; a sheet of pictures, and a table of what each costs."""

from __future__ import annotations

import datetime
import json
import os
import platform
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from urae import generation
from urae.cli.options import Fields
from urae.cli.printed import console, say
from urae.generation.asking import DrawingRequest, ModelRequest
from urae.io import Progress, check_can_write, plain, read_text, write_text

if TYPE_CHECKING:
    from urae.adapters import Adapter, Stack
    from urae.generation import DrawingPlan, Way, WayResult

__all__ = ["compare"]

STOCK = "stock"
"""The direct method without a policy: the pipeline as it comes, only larger."""
DEFAULT_WAYS = [STOCK, "direct", "tiled", "sdedit", "imax", "hiflow"]
MEASURES = ("repetition", "detail")
SHEET, TABLE = "grid.png", "compare.json"
UNFINISHED = "unfinished.json"
"""What was asked, as long as the table is not there: the same command may replace what it has made so far."""
SHARED = ("size", "policy", "steps", "offload", "decode")
"""What all ways have in common."""


def compare(
    prompt: Annotated[str, typer.Argument(help="What to draw.")],
    model: Annotated[dict[str, Any], Fields(ModelRequest)],
    drawing: Annotated[dict[str, Any], Fields(DrawingRequest, only=SHARED, size="256x256")],
    method: Annotated[
        list[str],
        typer.Option(help="A method, or method:option=value,option=value; stock is direct without a policy."),
    ] = DEFAULT_WAYS,
    native_steps: Annotated[
        int | None, typer.Option(help="Denoising steps of the native pass.", show_default="each method's")
    ] = None,
    seed: Annotated[int, typer.Option(help="The same for every method.")] = 0,
    out: Annotated[Path, typer.Option(help="Folder for the pictures, the sheet and the table.")] = Path(
        "compared"
    ),
) -> None:
    """Draw one prompt several ways: a sheet of pictures, and what each way costs; an earlier one is never replaced.

    With an adapter, each method is drawn without it and with it.

    Example: urae compare "a flat tiger on a wood background" --size 256x256 --method direct --method imax:weight=0.5
    """
    check_can_write(out, folder=True)
    asked, opening = DrawingRequest(prompt=prompt, seed=seed, **drawing), ModelRequest(**model)
    methods = [(text.replace(":", " "), _method(text, native_steps)) for text in method]
    if native_steps is not None and not any(isinstance(way, generation.TwoPass) for _, way in methods):
        raise ValueError("native_steps has no effect: none of the methods has a native pass")
    settings = {"prompt": prompt, "seed": seed, "methods": method, "native_steps": native_steps}
    begun = json.dumps({**settings, **vars(opening), **drawing}, default=str)
    _check_new(out, [label for label, _ in methods], begun)
    with opening.opened() as (pipe, adapter):
        plan = generation.plan_drawing(pipe, asked)
        say(f"memory: {plan.memory}")
        results = _drawn(plan, _ways(methods, asked, adapter), out, begun)
    sheet = generation.save_png(generation.grid(results, prompt=prompt), out / SHEET)
    table = out / TABLE
    write_text(table, json.dumps(_described(results, plan), indent=2, ensure_ascii=False) + "\n")
    (out / UNFINISHED).unlink()
    console.print(_table(results))
    say(f"wrote {sheet} and {table}")


def _check_new(out: Path, labels: Sequence[str], begun: str) -> None:
    """Refuse a folder that holds a comparison, but for this one unfinished, which is drawn anew: costs are those of one
    run."""
    if (out / UNFINISHED).is_file() and read_text(out / UNFINISHED) == begun:
        return
    files = (out / name for name in (SHEET, TABLE, *map(_file_name, labels)))
    if there := next((file for file in files if file.exists()), None):
        raise ValueError(
            f"{there} is there already: a comparison takes no other's place, so give another folder with --out"
        )


def _drawn(plan: DrawingPlan, ways: Sequence[Way], out: Path, begun: str) -> list[WayResult]:
    """Each picture is saved as soon as it is there, to be looked at."""
    from urae.metrics.detail import detail
    from urae.metrics.repetition import repetition

    def save(result: WayResult) -> None:
        write_text(out / UNFINISHED, begun)
        generation.save_png(result.image, out / _file_name(result.label))

    with Progress("drawing", total=sum(way.num_steps for way in ways)) as progress:
        return generation.compare_ways(
            plan.pipe,
            plan.images[0].prompt,
            ways,
            size=plan.size,
            seed=plan.images[0].seed,
            measures=dict(zip(MEASURES, (repetition, detail), strict=True)),
            memory=plan.memory,
            on_step=progress.advance,
            on_result=save,
        )


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


def _file_name(label: str) -> str:
    return re.sub(r"[^\w.=-]+", "-", label).strip("-") + ".png"


def _table(results: Sequence[WayResult]) -> Table:
    table = Table()
    table.add_column("method", overflow="fold")
    for name in ("seconds", "native pass", "calls", "peak memory", *MEASURES):
        table.add_column(name, justify="right")
    for result in results:
        native = f"{result.native_seconds:.1f}" if result.native else ""
        peak = "" if result.peak_bytes is None else f"{result.peak_bytes / 1e9:.2f} GB"
        numbers = [f"{result.numbers[name]:.3f}" for name in MEASURES]
        table.add_row(plain(result.label), f"{result.seconds:.1f}", native, str(result.calls), peak, *numbers)
    return table


def _described(results: Sequence[WayResult], plan: DrawingPlan) -> dict[str, Any]:
    """The table and all that its numbers depend on."""
    info = results[0].image.info
    on_cuda = plan.memory.device.startswith("cuda")
    return {
        "prompt": info["prompt"],
        "seed": int(info["seed"]),
        "size": list(plan.size),
        "model": info["model"],
        "base_weights": info.get("base_weights", "as_loaded"),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": _gpu_name() if on_cuda else f"{platform.machine()}, {os.cpu_count()} cores",
        "peak": "allocated on the device" if on_cuda else "of the whole process",
        "ways": [_row(result) for result in results],
    }


def _gpu_name() -> str:
    import torch  # here, since the list of options needs nothing of it

    return torch.cuda.get_device_name()


def _row(result: WayResult) -> dict[str, Any]:
    return {
        "label": result.label,
        "file": _file_name(result.label),
        "seconds": round(result.seconds, 3),
        "native_seconds": round(result.native_seconds, 3),
        "calls": result.calls,
        "tokens": result.tokens,
        "peak_bytes": result.peak_bytes,
        **result.numbers,
        "made": result.image.info,
    }

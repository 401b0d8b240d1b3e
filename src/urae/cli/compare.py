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
from typing import Annotated, Any, Literal, get_args

import torch
import typer
from rich.console import Console
from rich.table import Table

from urae import generation
from urae.adapters import Adapter
from urae.cli.generate import choose_memory, opened, parse_policy, parse_size
from urae.execution import MemoryPlan
from urae.execution.memory import Decode, Offload
from urae.execution.rounding import Format
from urae.generation import Outcome, TwoPass, Way, grid, method_from_texts, save_png
from urae.io import Progress
from urae.metrics.detail import detail
from urae.metrics.repetition import repetition
from urae.resolution import ResolutionPolicy, Size

__all__ = ["compare"]

console = Console(highlight=False, soft_wrap=True)

STOCK = "stock"
"""The direct method without a policy: the pipeline as it comes, only larger."""
DEFAULT_WAYS = [STOCK, "direct", "tiled", "sdedit", "imax", "hiflow"]
MEASURES = {"repetition": repetition, "detail": detail}


def compare(
    prompt: Annotated[str, typer.Argument(help="What to draw.")],
    model: Annotated[
        str, typer.Option(help="mini, a diffusers folder, a .safetensors file (with --base) or a hub id.")
    ] = "mini",
    base: Annotated[str, typer.Option(help="Folder or hub id with the other parts of a single file.")] = "",
    size: Annotated[str, typer.Option(help="WIDTHxHEIGHT in pixels, multiples of 16.")] = "256x256",
    method: Annotated[
        list[str],
        typer.Option(help="A method, or method:option=value,option=value; stock is direct without a policy."),
    ] = DEFAULT_WAYS,
    adapter: Annotated[
        Path | None, typer.Option(help="Adapter file: each method is drawn without it and with it.")
    ] = None,
    start: Annotated[
        Path | None, typer.Option(help="Adapter that was fused before this one's training.")
    ] = None,
    policy: Annotated[
        str, typer.Option(help="auto, none (stock behaviour), reference, or a JSON file.")
    ] = "auto",
    steps: Annotated[
        int | None, typer.Option(help="Denoising steps at this size.", show_default="each method's")
    ] = None,
    native_steps: Annotated[
        int | None, typer.Option(help="Denoising steps of the native pass.", show_default="each method's")
    ] = None,
    seed: Annotated[int, typer.Option(help="The same for every method.")] = 0,
    dtype: Annotated[str, typer.Option(help="auto, bfloat16, float16 or float32.")] = "auto",
    base_weights: Annotated[
        str,
        typer.Option(
            help=f"How the transformer holds its matrices: as_loaded, or rounded to {', '.join(get_args(Format))}."
        ),
    ] = "as_loaded",
    offload: Annotated[str, typer.Option(help=f"auto, {', '.join(get_args(Offload))}.")] = "auto",
    decode: Annotated[
        str, typer.Option(help=f"How the VAE makes the picture: auto, {', '.join(get_args(Decode))}.")
    ] = "auto",
    out: Annotated[Path, typer.Option(help="Folder for the pictures, the sheet and the table.")] = Path(
        "compared"
    ),
) -> None:
    """Draw one prompt several ways: a sheet of pictures, and what each way costs.

    Example: urae compare "a flat tiger on a wood background" --size 256x256 --method direct --method imax:weight=0.5
    """
    pixels, chosen = parse_size(size), parse_policy(policy)
    methods = [(text.replace(":", " "), _method(text, native_steps)) for text in method]
    if native_steps is not None and not any(isinstance(way, TwoPass) for _, way in methods):
        raise ValueError("native_steps has no effect: none of the methods has a native pass")
    opening = opened(model, base=base, dtype=dtype, adapter=adapter, start=start, base_weights=base_weights)
    with opening as (pipe, loaded):
        ways = _ways(
            methods,
            policy=chosen,
            adapter=loaded,
            steps="auto" if steps is None else steps,
        )
        plan = choose_memory(pipe, pixels, offload, decode)
        console.print(f"memory: {plan}")
        with Progress("drawing", total=sum(way.num_steps for way in ways)) as progress:
            outcomes = generation.compare_ways(
                pipe,
                prompt,
                ways,
                size=pixels,
                seed=seed,
                measures=MEASURES,
                memory=plan,
                on_step=progress.advance,
                on_result=lambda outcome: _save(outcome, out, adapter),
            )
    sheet = save_png(grid(outcomes, prompt=prompt), out / "grid.png")
    table = _write_json(_described(outcomes, pixels, plan), out / "compare.json")
    console.print(_table(outcomes))
    console.print(f"wrote {sheet} and {table}")


def _method(text: str, native_steps: int | None) -> Any:
    """The method of "name" or "name:option=value,option=value"."""
    name, _, options = text.partition(":")
    if name == STOCK and options:
        raise ValueError(f"{STOCK} has no options: leave {options!r} out")
    method = method_from_texts("direct" if name == STOCK else name, options.split(",") if options else [])
    return (
        replace(method, native_steps=native_steps) if native_steps and isinstance(method, TwoPass) else method
    )


def _ways(
    methods: Sequence[tuple[str, Any]],
    *,
    policy: ResolutionPolicy | Literal["auto", "none"],
    adapter: Adapter | None,
    steps: int | Literal["auto"],
) -> list[Way]:
    """Each method without the adapter, and with it where it has an effect and a policy to run under."""
    ways = []
    for label, method in methods:
        if label == STOCK:
            ways.append(Way(label=label, method=method, policy="none", steps=steps))
        elif method.steps == 0:
            ways.append(Way(label=label, method=method))
        else:
            plain = Way(label=label, method=method, policy=policy, steps=steps)
            ways.append(plain)
            if adapter:
                ways.append(replace(plain, label=f"{label} + adapter", adapter=adapter))
    return ways


def _save(outcome: Outcome, out: Path, adapter: Path | None) -> None:
    """Each picture is saved as soon as it is there, so that an interrupted run keeps what it has made."""
    if adapter and "adapter_hash" in outcome.image.info:
        outcome.image.info["adapter_file"] = adapter.name
    save_png(outcome.image, out / _file_name(outcome.label))


def _file_name(label: str) -> str:
    return re.sub(r"[^\w.=-]+", "-", label).strip("-") + ".png"


def _table(outcomes: Sequence[Outcome]) -> Table:
    table = Table()
    table.add_column("method", overflow="fold")
    for name in ("seconds", "native pass", "calls", "peak memory", *MEASURES):
        table.add_column(name, justify="right")
    for outcome in outcomes:
        native = f"{outcome.native_seconds:.1f}" if outcome.native else ""
        peak = "" if outcome.peak_bytes is None else f"{outcome.peak_bytes / 1e9:.2f} GB"
        numbers = [f"{outcome.numbers[name]:.3f}" for name in MEASURES]
        table.add_row(outcome.label, f"{outcome.seconds:.1f}", native, str(outcome.calls), peak, *numbers)
    return table


def _described(outcomes: Sequence[Outcome], size: Size, plan: MemoryPlan) -> dict[str, Any]:
    """The table and all that its numbers depend on."""
    info = outcomes[0].image.info
    on_cuda = plan.device.startswith("cuda")
    return {
        "prompt": info["prompt"],
        "seed": int(info["seed"]),
        "size": list(size),
        "model": info["model"],
        "base_weights": info.get("base_weights", "as_loaded"),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": torch.cuda.get_device_name()
        if on_cuda
        else f"{platform.machine()}, {os.cpu_count()} cores",
        "peak": "allocated on the device" if on_cuda else "of the whole process",
        "ways": [_row(outcome) for outcome in outcomes],
    }


def _row(outcome: Outcome) -> dict[str, Any]:
    return {
        "label": outcome.label,
        "file": _file_name(outcome.label),
        "seconds": round(outcome.seconds, 3),
        "native_seconds": round(outcome.native_seconds, 3),
        "calls": outcome.calls,
        "tokens": outcome.tokens,
        "peak_bytes": outcome.peak_bytes,
        **outcome.numbers,
        "made": outcome.image.info,
    }


def _write_json(content: dict[str, Any], path: Path) -> Path:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(temporary, path)
    return path

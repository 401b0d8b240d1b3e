"""`urae generate`: prompts in, PNGs out, and a line that says where each is and what it was made with."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import torch
import typer
from rich.console import Console

from urae import generation
from urae.adapters import Adapter
from urae.cli.pictures import Pictures, asked_for
from urae.cli.stock import draw_stock
from urae.errors import BadFile
from urae.execution import MemoryPlan, plan_memory, plan_speed, quantised, this_process
from urae.execution.caches import CACHES
from urae.execution.choices import Compile, Format, Offload, VaeWay
from urae.families import open_pipeline
from urae.generation import TwoPass, method_from_texts, policy_for
from urae.generation.methods import METHODS, Method
from urae.generation.stock import stock_of
from urae.io import Progress
from urae.resolution import ResolutionPolicy, Size, check_size, dynamic_shift, native_size

__all__ = ["generate"]

console = Console(highlight=False, soft_wrap=True)

Prompts = Annotated[
    list[str] | None, typer.Argument(help="What to draw; each prompt is drawn with each seed.")
]
PromptFile = Annotated[
    Path | None,
    typer.Option("--prompts", help="File of prompts instead: .txt, a line each, .jsonl or .parquet."),
]
Seeds = Annotated[list[int], typer.Option("--seed", help="Repeat for several.")]


def generate(
    prompts: Prompts = None,
    prompt_file: PromptFile = None,
    model: Annotated[
        str, typer.Option(help="mini, a diffusers folder, a .safetensors file (with --base) or a hub id.")
    ] = "mini",
    base: Annotated[str, typer.Option(help="Folder or hub id with the other parts of a single file.")] = "",
    size: Annotated[str, typer.Option(help="WIDTHxHEIGHT in pixels, multiples of 16.")] = "256x256",
    adapter: Annotated[Path | None, typer.Option(help="Adapter file of any layout.")] = None,
    start: Annotated[
        Path | None, typer.Option(help="Adapter that was fused before this one's training.")
    ] = None,
    method: Annotated[str, typer.Option(help=f"One of {', '.join(METHODS)}.")] = "direct",
    settings: Annotated[
        list[str], typer.Option("--set", help="An option of the method, as name=value; repeat for several.")
    ] = [],  # noqa: B006
    policy: Annotated[
        str, typer.Option(help="auto, none (stock behaviour), reference, or a JSON file.")
    ] = "auto",
    steps: Annotated[
        int | None, typer.Option(help="Denoising steps at this size.", show_default="the method's")
    ] = None,
    guidance: Annotated[
        float | None, typer.Option(help="Guidance scale at this size.", show_default="the method's")
    ] = None,
    seed: Seeds = [0],  # noqa: B006
    native: Annotated[
        list[Path], typer.Option(help="Picture to start from; one for all or one for each image.")
    ] = [],  # noqa: B006
    natives: Annotated[
        Path | None, typer.Option(help="Folder that keeps the native pictures of two-pass methods.")
    ] = None,
    dtype: Annotated[str, typer.Option(help="auto, bfloat16, float16 or float32.")] = "auto",
    base_weights: Annotated[
        str,
        typer.Option(
            help=f"How the transformer holds its matrices: as_loaded, or rounded to {', '.join(get_args(Format))}."
        ),
    ] = "as_loaded",
    offload: Annotated[str, typer.Option(help=f"auto, {', '.join(get_args(Offload))}.")] = "auto",
    decode: Annotated[
        str, typer.Option(help=f"How the VAE makes the picture: auto, {', '.join(get_args(VaeWay))}.")
    ] = "auto",
    speed: Annotated[
        str,
        typer.Option(
            help=f"exact, fast, or a cache, {' or '.join(CACHES)}, with settings: taylorseer:interval=3."
        ),
    ] = "exact",
    compile: Annotated[
        str, typer.Option(help="Compile the transformer's blocks: auto (where it pays), on or off.")
    ] = "auto",
    context_parallel: Annotated[
        int, typer.Option(help="Under torchrun: processes that draw each picture together.")
    ] = 1,
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("images"),
) -> None:
    """Make pictures, with or without an adapter. A file of prompts goes on where it was stopped.

    Example: urae generate "a flat tiger on a wood background" --size 256x256 --seed 0 --seed 1

    Several GPUs: torchrun --nproc-per-node 8 --no-python urae generate --prompts prompts.txt --size 256x256
    """
    pixels = parse_size(size)
    texts = asked_for(prompts, prompt_file)
    state = this_process()
    say = console.print if state.is_main_process else _nothing
    pictures = Pictures(out, texts, keep=prompt_file is not None, context_parallel=context_parallel)
    if stock_of(model):
        ours: dict[str, Any] = {
            "base": base,
            "adapter": adapter,
            "start": start,
            "set": settings,
            "method": method != "direct",
        }
        ours |= {"policy": policy not in ("auto", "none"), "native": native, "natives": natives}
        draw_stock(
            model,
            texts,
            pictures,
            size=pixels,
            seeds=seed,
            steps=steps,
            guidance=guidance,
            dtype=dtype,
            offload=offload,
            decode=decode,
            ours=ours
            | {
                "base-weights": base_weights != "as_loaded",
                "speed": speed != "exact",
                "compile": compile == "on",
                "context-parallel": context_parallel > 1,
            },
        )
        _tell(pictures)
        return
    chosen = parse_policy(policy)
    way = method_from_texts(method, settings)
    _check_effect(way, has_native=bool(native), decode=decode, base_weights=base_weights)
    opening = opened(model, base=base, dtype=dtype, adapter=adapter, start=start, base_weights=base_weights)
    with opening as (pipe, loaded):
        plan = choose_memory(pipe, pixels, offload, decode)
        if plan.device == "cuda":
            plan = replace(plan, device=str(state.device))
        in_effect = way.policy(policy_for(pipe, pixels, adapter=loaded, policy=chosen))
        num_steps = way.steps if steps is None else steps
        say(f"policy: {in_effect.to_json() if in_effect else 'none'}")
        say(f"memory: {plan}")
        shift = in_effect.shift if in_effect else dynamic_shift(pipe, pixels)
        if said := way.describe(steps=num_steps, shift=shift):
            say(f"{way.name}: {said}")
        compiles = parse_compile(compile)
        how = partial(
            plan_speed,
            pipe,
            pixels,
            speed,
            steps=num_steps,
            compile=compiles,
            context_parallel=context_parallel,
            memory=plan,
        )
        first_pass = way.native_steps if isinstance(way, TwoPass) and not native else 0
        steps_each = first_pass + num_steps
        total = len(texts) * len(seed) * steps_each

        def expect(num_images: int) -> None:
            progress.expect(num_images * steps_each)
            say(f"speed: {how(num_images=num_images)}")

        with Progress("generating", total=total, show=state.is_main_process) as progress:
            more = {"adapter_file": adapter.name} if adapter else {}
            generation.generate(
                pipe,
                texts,
                size=pixels,
                method=way,
                adapter=loaded,
                policy=chosen,
                seed=seed,
                steps=num_steps,
                guidance="auto" if guidance is None else guidance,
                native=(native[0] if len(native) == 1 else native) or None,
                natives=natives,
                memory=plan,
                speed=speed,
                compile=compiles,
                context_parallel=context_parallel,
                choose=partial(pictures.choose, expect=expect, say=say),
                on_step=progress.advance,
                on_image=lambda image: pictures.save(image, **more),
            )
    _tell(pictures)


def _check_effect(way: Method, *, has_native: bool, decode: str, base_weights: str) -> None:
    """Refuse what a method that draws nothing at this size has no use for."""
    if way.steps == 0 and decode != "auto":
        raise ValueError(
            f"decode has no effect with the {way.name} method, whose VAE sees the native picture alone: leave it out"
        )
    if way.steps == 0 and has_native and base_weights != "as_loaded":
        raise ValueError(
            f"base_weights has no effect with the {way.name} method and a native picture: leave one out"
        )


def _tell(pictures: Pictures) -> None:
    for file in pictures.written:
        console.print(f"wrote {file}")


def _nothing(text: str) -> None:
    """What processes beside the first say."""


def parse_size(text: str) -> Size:
    sides = re.fullmatch(r"(\d+)x(\d+)", text)
    if not sides:
        raise ValueError(f"size is {text!r}: expected WIDTHxHEIGHT in pixels, such as 256x256")
    return check_size((int(sides[1]), int(sides[2])))


def parse_policy(text: str) -> ResolutionPolicy | Literal["auto", "none"]:
    if text == "auto":
        return "auto"
    if text == "none":
        return "none"
    if text == "reference":
        return ResolutionPolicy.reference()
    if not text.endswith(".json"):
        raise ValueError(f"policy is {text!r}: expected auto, none, reference or the name of a JSON file")
    try:
        return ResolutionPolicy.from_json(Path(text).read_text(encoding="utf-8"))
    except ValueError as error:
        raise BadFile(f"{text} is no resolution policy: {error}") from error


def parse_compile(text: str) -> Compile:
    if text not in ("auto", "on", "off"):
        raise ValueError(f"compile is {text!r}: expected auto, on or off")
    return "auto" if text == "auto" else text == "on"


@contextmanager
def opened(
    model: str, *, base: str, dtype: str, adapter: Path | None, start: Path | None, base_weights: str
) -> Iterator[tuple[Any, Adapter | None]]:
    """The pipeline, its matrices stored as asked, and the adapter, which has seen them as they were loaded."""
    if base_weights != "as_loaded" and base_weights not in get_args(Format):
        formats = ", ".join(get_args(Format))
        raise ValueError(f"base_weights is {base_weights!r}: expected one of as_loaded, {formats}")
    pipe = open_pipeline(model, base=base, dtype=dtype)
    pipe.set_progress_bar_config(disable=True)
    loaded = load_adapter(adapter, pipe, start)
    rounded = nullcontext() if base_weights == "as_loaded" else quantised(pipe, base_weights)  # type: ignore[arg-type]
    with rounded:
        yield pipe, loaded


def load_adapter(path: Path | None, pipe: Any, start: Path | None) -> Adapter | None:
    if path:
        return Adapter.load(path, base=pipe, start=start)
    if start:
        raise ValueError(f"start {start} has no effect without an adapter: give one with --adapter")
    return None


def choose_memory(pipe: Any, size: Size, offload: str, decode: str) -> MemoryPlan:
    """What was chosen for this machine and size, but for what the user decides."""
    if decode == "tiles" and max(size) <= native_size(pipe):
        raise ValueError(
            f"decode is 'tiles', but {size[0]}x{size[1]} is no larger than one tile, of {native_size(pipe)} px: "
            "leave it out"
        )
    plan = plan_memory(pipe, size)
    if offload == decode == "auto":
        return plan
    if offload == "auto":
        return replace(plan, decode=decode, reason="as asked")  # type: ignore[arg-type]
    if decode == "auto":
        # Layers that come one by one are none that strips know.
        decode = "tiles" if plan.decode == "strips" and offload == "sequential" else plan.decode
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return MemoryPlan(device=device, offload=offload, decode=decode)  # type: ignore[arg-type]

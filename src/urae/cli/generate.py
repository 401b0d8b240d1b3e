"""`urae generate`: prompts in, PNGs out, and a line that says where each is and what it was made with."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import torch
import typer
from PIL import Image
from rich.console import Console

from urae import generation
from urae.adapters import Adapter
from urae.cli.stock import draw_stock
from urae.data import Progress
from urae.errors import BadFile
from urae.generation import (
    MemoryPlan,
    TwoPass,
    method_from_texts,
    plan_memory,
    policy_for,
    save_png,
)
from urae.generation.memory import Offload
from urae.generation.methods import METHODS
from urae.generation.stock import stock_of
from urae.resolution import ResolutionPolicy, Size, check_size, dynamic_shift

__all__ = ["generate"]

console = Console(highlight=False, soft_wrap=True)

Prompts = Annotated[list[str], typer.Argument(help="What to draw; each prompt is drawn with each seed.")]
Seeds = Annotated[list[int], typer.Option("--seed", help="Repeat for several.")]


def generate(
    prompts: Prompts,
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
    offload: Annotated[str, typer.Option(help=f"auto, {', '.join(get_args(Offload))}.")] = "auto",
    tiles: Annotated[str, typer.Option(help="Decode in tiles: auto, on or off.")] = "auto",
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("images"),
) -> None:
    """Make pictures, with or without an adapter.

    Example: urae generate "a flat tiger on a wood background" --size 256x256 --seed 0 --seed 1
    """
    pixels = parse_size(size)
    if stock_of(model):
        ours: dict[str, Any] = {
            "base": base,
            "adapter": adapter,
            "start": start,
            "set": settings,
            "method": method != "direct",
        }
        ours |= {"policy": policy not in ("auto", "none"), "native": native, "natives": natives}
        for file in draw_stock(
            model,
            prompts,
            size=pixels,
            seeds=seed,
            steps=steps,
            guidance=guidance,
            dtype=dtype,
            offload=offload,
            tiles=tiles,
            ours=ours,
            save=lambda image: _save(image, out, prompts, None),
        ):
            console.print(f"wrote {file}")
        return
    chosen = parse_policy(policy)
    way = method_from_texts(method, settings)
    pipe = generation.open_pipeline(model, base=base, dtype=dtype)
    pipe.set_progress_bar_config(disable=True)
    loaded = load_adapter(adapter, pipe, start)
    plan = choose_memory(pipe, pixels, offload, tiles)
    in_effect = way.policy(policy_for(pipe, pixels, adapter=loaded, policy=chosen))
    num_steps = way.steps if steps is None else steps
    console.print(f"policy: {in_effect.to_json() if in_effect else 'none'}")
    console.print(f"memory: {plan}")
    shift = in_effect.shift if in_effect else dynamic_shift(pipe, pixels)
    if said := way.describe(steps=num_steps, shift=shift):
        console.print(f"{way.name}: {said}")
    files: list[Path] = []
    first_pass = way.native_steps if isinstance(way, TwoPass) and not native else 0
    with Progress("generating", total=len(prompts) * len(seed) * (first_pass + num_steps)) as progress:
        generation.generate(
            pipe,
            prompts,
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
            on_step=progress.advance,
            on_image=lambda image: files.append(_save(image, out, prompts, adapter)),
        )
    for file in files:
        console.print(f"wrote {file}")


def _save(image: Image.Image, out: Path, prompts: list[str], adapter: Path | None) -> Path:
    """Each picture is saved as soon as it is there, so that an interrupted run keeps what it has made."""
    if adapter:
        image.info["adapter_file"] = adapter.name
    return save_png(image, out / _file_name(image.info, prompts))


def _file_name(info: dict[Any, Any], prompts: list[str]) -> str:
    """Such as 1-a-flat-tiger-256x256-imax-seed0.png; the number is the prompt's place on the command line."""
    words = re.sub(r"\W+", "-", info["prompt"].lower()).strip("-")[:40].strip("-")
    place = prompts.index(info["prompt"]) + 1
    method = "" if info["method"] == "direct" else info["method"]
    return "-".join(filter(None, [str(place), words, info["size"], method, f"seed{info['seed']}"])) + ".png"


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


def load_adapter(path: Path | None, pipe: Any, start: Path | None) -> Adapter | None:
    if path:
        return Adapter.load(path, base=pipe, start=start)
    if start:
        raise ValueError(f"start {start} has no effect without an adapter: give one with --adapter")
    return None


def choose_memory(pipe: Any, size: Size, offload: str, tiles: str) -> MemoryPlan:
    if tiles not in ("auto", "on", "off"):
        raise ValueError(f"tiles is {tiles!r}: expected auto, on or off")
    plan = plan_memory(pipe, size)
    if offload != "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
        plan = MemoryPlan(device=device, offload=offload, tile_vae=plan.tile_vae)  # type: ignore[arg-type]
    return plan if tiles == "auto" else replace(plan, tile_vae=tiles == "on", reason="as asked")

"""`urae generate`: prompts in, PNGs out, and a line that says where each is and what it was made with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from urae import execution, generation
from urae.cli.options import Fields, given_options
from urae.cli.printed import Verbose, say
from urae.collecting import read_prompts
from urae.generation.asking import DrawingRequest, ModelRequest
from urae.io import Progress, check_can_write, write_text

if TYPE_CHECKING:
    from urae.baselines import StockPlan
    from urae.generation import Again, DrawingPlan, PictureFiles

__all__ = ["PromptFile", "Prompts", "asked_for", "generate"]

Prompts = Annotated[
    list[str] | None, typer.Argument(help="What to draw; each prompt is drawn with each seed.")
]
PromptFile = Annotated[
    Path | None,
    typer.Option(
        "--prompts",
        help="File of prompts instead: .txt (# begins a comment), .jsonl, .parquet or .json. An id names the picture.",
    ),
]
Model = Annotated[dict[str, Any], Fields(ModelRequest)]
Drawing = Annotated[dict[str, Any], Fields(DrawingRequest, without=("prompt",), size="256x256")]
Like = Annotated[
    Path | None,
    typer.Option(
        help="Picture to make again, or differently by other options; of urae, or as far as understood of "
        "AUTOMATIC1111 and ComfyUI."
    ),
]
Format = Annotated[str, typer.Option(help="Format of the files: png, jpeg or webp.")]


def generate(
    ctx: typer.Context,
    model: Model,
    drawing: Drawing,
    prompts: Prompts = None,
    prompt_file: PromptFile = None,
    like: Like = None,
    format: Format = "png",
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("images"),
    sheet: Annotated[
        Path | None,
        typer.Option(help="Page (.html) to write with all pictures small, such as those of eight seeds."),
    ] = None,
    verbose: Verbose = False,
) -> dict[str, Any] | None:
    """Make pictures, with or without an adapter. Finished pictures with the same settings are kept; none is replaced.

    Example: urae generate "a flat tiger on a wood background" --size 256x256 --seed 0-7 --sheet seeds.html

    Several GPUs: torchrun --nproc-per-node 8 --no-python urae generate --prompts prompts.txt --size 256x256
    """
    from urae import baselines  # which imports torch

    again = _again(ctx, like, drawing["settings"]) if like else None
    if again:
        model, drawing = {**model, **again.model}, {**drawing, **again.drawing}
    own = drawing.pop("prompt", None)
    texts = own if own and not (prompts or prompt_file) else asked_for(prompts, prompt_file)
    listed = list(texts.values()) if isinstance(texts, dict) else texts
    asked, opening = DrawingRequest(prompt=listed, **drawing), ModelRequest(**model)
    files = generation.PictureFiles(out, texts, format=format, context_parallel=asked.context_parallel)
    if sheet and sheet.suffix != ".html":
        raise ValueError(f"sheet is {sheet}: expected a name that ends in .html")
    if sheet:
        check_can_write(sheet)
    if compared := baselines.stock_of(opening.model):
        _check_stock(compared.name, {**model, **drawing, "verbose": verbose})
    else:
        _check_rounding(opening, asked)
    with _stock_plan(opening, asked) if compared else _plan(opening, asked, again) as plan:
        _draw(plan, files, verbose=verbose)
    for file in files.written:
        say(f"wrote {file}")
    made = list(zip(files.paths, plan.made, strict=True))
    if sheet:
        execution.gathered([])  # once all processes have written theirs
        if execution.this_process().is_main_process:
            write_text(sheet, generation.contact_page(made, beside=sheet.parent))
            say(f"wrote {sheet}")
    pictures = [{"file": str(path), "prompt": one.prompt, "seed": one.seed} for path, one in made]
    return {"pictures": pictures} if execution.this_process().is_main_process else None


def _again(ctx: typer.Context, like: Path, settings: Sequence[str]) -> Again:
    """What the picture asks for, without what the command line sets; it is told at once."""
    again = generation.asked_again(like, given=given_options(ctx), settings=settings)
    for line in again.said:
        say(line)
    return again


def asked_for(prompts: list[str] | None, file: Path | None) -> list[str] | dict[str, str]:
    """The prompts of the command line or of a file, there by id; ValueError for both and for neither."""
    if prompts and file:
        raise ValueError(f"there are prompts on the command line and in {file}: give one or the other")
    if not (prompts or file):
        raise ValueError("nothing to draw: give a prompt in quotes, or --prompts FILE with one on each line")
    return read_prompts(file) if file else list(prompts or [])


@contextmanager
def _plan(opening: ModelRequest, asked: DrawingRequest, again: Again | None) -> Iterator[DrawingPlan]:
    with opening.opened() as (pipe, adapter):
        if again:
            again.check(adapter)
        yield generation.plan_drawing(pipe, replace(asked, adapter=adapter))


@contextmanager
def _stock_plan(opening: ModelRequest, asked: DrawingRequest) -> Iterator[StockPlan]:
    """Of a model to compare with, PixArt-Sigma or Sana: its own pipeline, and nothing of ours."""
    from urae import baselines

    pipe = baselines.open_stock(opening.model, dtype=baselines.stock_dtype(opening.dtype))
    pipe.set_progress_bar_config(disable=True)
    yield baselines.plan_stock(
        pipe,
        asked.prompts,
        size=asked.size,  # type: ignore[arg-type]
        seeds=asked.seeds,
        steps=0 if asked.steps == "auto" else asked.steps,
        guidance=None if asked.guidance == "auto" else asked.guidance,
        memory=baselines.stock_memory(asked.offload, asked.decode),
    )


def _draw(whole: DrawingPlan | StockPlan, files: PictureFiles, *, verbose: bool) -> None:
    plan: Any = whole.only(files.missing(whole.made))
    is_main = execution.this_process().is_main_process
    if is_main and files.there:
        say(
            f"{len(files.there)} of {len(whole.made)} pictures are finished already, such as {files.there[0]}"
        )
    if is_main:
        say(plan)
    if is_main and verbose and plan.policy:
        say(f"policy as JSON: {plan.policy.to_json()}")
    with Progress("generating", total=plan.num_steps, show=is_main) as progress:
        plan.run(on_step=progress.advance, on_image=files.save)


def _check_stock(name: str, given: Mapping[str, Any]) -> None:
    """Refuse what only our models understand."""
    theirs = {"model", "dtype", "size", "seed", "steps", "guidance", "offload", "decode"}
    usual = {field.name: field.default for kind in (ModelRequest, DrawingRequest) for field in fields(kind)}
    usual["verbose"] = False
    for option, value in given.items():
        if option not in theirs and value not in (usual[option], False, "none"):
            flag = "set" if option == "settings" else option.replace("_", "-")
            raise ValueError(f"--{flag} has no effect on a {name}, which runs unchanged: leave it out")


def _check_rounding(opening: ModelRequest, asked: DrawingRequest) -> None:
    """Refuse to round a transformer that does not run."""
    way: Any = asked.method
    if way.steps == 0 and asked.native is not None and opening.base_weights != "as_loaded":
        raise ValueError(
            f"base_weights has no effect with the {way.name} method and a native picture: leave one out"
        )

"""`urae data cache`: images and captions in, latents and text embeddings out."""

from __future__ import annotations

import math
import shlex
from typing import Annotated, Literal

import typer

from urae import data
from urae.cli.printed import say
from urae.io import check_can_write
from urae.recipes import RECIPES

__all__ = ["cache"]


def cache(
    source: Annotated[str, typer.Argument(help="A folder of captioned images, or a manifest (.jsonl).")],
    size: Annotated[int, typer.Option(help="Side of the square whose area the images get, px.")],
    model: Annotated[str, typer.Option(help="mini, a diffusers folder or a hub id.")] = "mini",
    out: Annotated[
        str, typer.Option(help="Folder for the cache; by default beside the data, where training looks.")
    ] = "",
    encoding: Annotated[
        str, typer.Option(help="exact, tiled, or auto: exact where the memory allows it.")
    ] = "auto",
    form: Annotated[str, typer.Option(help="full, or small: an 8-bit std and 8-bit embeddings.")] = "full",
    memory: Annotated[
        float,
        typer.Option(min=0, help="GB for encoding an image; by default what is free.", show_default=False),
    ] = math.inf,
    dtype: Annotated[
        Literal["auto", "bfloat16", "float16", "float32"], typer.Option(help="As training loads the model.")
    ] = "auto",
    shards: Annotated[
        str, typer.Option(help="URL to write the cache to as shards, such as s3://bucket/name.")
    ] = "",
    verify: Annotated[
        bool, typer.Option(help="Check existing entries and make damaged ones again, or trust them.")
    ] = True,
) -> None:
    """Encode images and captions once, for training.

    Stopped or killed at any moment, the same command continues where it was.

    Example: urae data cache data/2k/manifest.jsonl --size 2048 --model black-forest-labs/FLUX.1-dev

    Several GPUs: torchrun --nproc-per-node 8 --no-python urae data cache data/2k/manifest.jsonl --size 2048
    """
    from urae.data.sources import cache_folder
    from urae.execution import first_here, on_main, this_process
    from urae.families import open_encoders

    if out:
        check_can_write(out, folder=True)
    state = this_process()
    pipe = first_here(lambda: open_encoders(model, dtype=dtype))
    folder = out or on_main(lambda: str(cache_folder(pipe, source, size=size, form=form)))
    report = data.make_cache(
        pipe,
        source,
        folder,
        size=size,
        encoding=encoding,
        form=form,
        memory=memory * 1e9,
        device=state.device,
        verify=verify,
    )
    lines = [str(report), f"wrote {folder}"]
    if shards:
        lines.append(f"wrote {data.write_shards(report.cache, shards)} shards to {shards}")
    if state.is_main_process:
        say("\n".join([*lines, f"next: {_next(shards or out or source, model=model, size=size)}"]))


def _next(data: str, *, model: str, size: int) -> str:
    """The recipe for this model and size, or how to tell one of its own."""
    fitting = [name for name, made in RECIPES.items() if (made().model, made().size) == (model, size)]
    if fitting:
        return shlex.join(["urae", "train", fitting[0], f"data={data}"])
    return f"urae train RECIPE {shlex.join([f'data={data}', f'size={size}', f'model={model}'])}"

"""`urae enlarge`: a picture of one's own at a larger size, and a page that shows it before and after."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from urae import enlarging, generation
from urae.cli.options import Fields
from urae.cli.printed import Verbose, say
from urae.collecting.captioner import Captioner
from urae.enlarging.asking import EnlargeRequest
from urae.generation.asking import DrawingRequest, ModelRequest
from urae.io import OPENAI, Progress, is_picture_name, read_picture, write_text

if TYPE_CHECKING:
    from urae.enlarging import EnlargePlan

__all__ = ["enlarge"]

TAKEN = ("seed", "negative", "policy", "steps", "guidance", "offload", "decode", "speed", "compile")
"""What the drawing of an enlargement shares with any other."""


def enlarge(
    picture: Annotated[
        Path, typer.Argument(help="The picture, of any shape: JPEG, PNG, WebP, TIFF or AVIF.")
    ],
    asked: Annotated[dict[str, Any], Fields(EnlargeRequest, without=("picture",))],
    model: Annotated[dict[str, Any], Fields(ModelRequest)],
    drawing: Annotated[dict[str, Any], Fields(DrawingRequest, only=TAKEN)],
    caption_model: Annotated[
        str,
        typer.Option(help="Vision-language model that says what the picture shows, instead of a prompt."),
    ] = "",
    caption_url: Annotated[str, typer.Option(help="Its server, of OpenAI's protocol.")] = OPENAI,
    format: Annotated[str, typer.Option(help="Format of the files: png, jpeg or webp.")] = "png",
    out: Annotated[Path, typer.Option(help="Folder for the pictures and the page.")] = Path("enlarged"),
    verbose: Verbose = False,
) -> dict[str, Any]:
    """Make a picture larger. Finished pictures with the same settings are kept; none is replaced.

    Example: urae enlarge photo.jpg --scale 2 --change little --prompt "a lighthouse at dusk"
    """
    if not is_picture_name(picture):
        raise ValueError(f"{picture} does not have a picture's ending, such as .jpg or .png")
    if caption_model and asked["prompt"]:
        raise ValueError("caption_model has no effect beside a prompt: leave one out")
    if caption_url != OPENAI and not caption_model:
        raise ValueError("caption_url has no effect without a model: name it with --caption-model")
    request, opening = EnlargeRequest(picture=picture, **asked), ModelRequest(**model)
    files = generation.PictureFiles(out, [], title=picture.stem, format=format)
    if caption_model:
        request = _captioned(request, picture, Captioner(model=caption_model, base_url=caption_url))
    with opening.opened() as (pipe, adapter):
        plan = enlarging.plan_enlarging(pipe, request, adapter=adapter, **drawing)
        _draw(plan, files, verbose=verbose)
    return {"pictures": [str(path) for path in files.paths]}


def _captioned(request: EnlargeRequest, picture: Path, captioner: Captioner) -> EnlargeRequest:
    prompt = enlarging.described(picture, captioner)
    say(f"prompt, by {captioner.model}: {prompt}")
    return replace(request, prompt=prompt)


def _draw(whole: EnlargePlan, files: Any, *, verbose: bool) -> None:
    plan = whole.only(files.missing(whole.made))
    for file in files.there:
        say(f"finished already: {file}")
    say(whole)
    if verbose and (policy := whole.drawing.policy):
        say(f"policy as JSON: {policy.to_json()}")
    with Progress("enlarging", total=plan.num_steps) as progress:
        plan.run(on_step=progress.advance, on_image=files.save)
    for file in files.written:
        say(f"wrote {file}")
    page = files.paths[0].with_suffix(".html")
    if files.written or not page.exists():
        shown = [(file, read_picture(file)) for file in files.paths]
        write_text(page, enlarging.before_after_page(whole, shown))
        say(f"before and after: {page}")

"""`urae data`: from nothing to a cached training set, one command a step."""

from __future__ import annotations

import typer

from urae.cli.verbs import Verbs

__all__ = ["app"]


class Data(Verbs):
    """What can be done with a data set."""

    package = "urae.cli.data"
    verbs = {
        "collect": "Collect synthetic images from a teacher.",
        "import": "Take the images that are good enough into a data set, and show what was rejected and why.",
        "caption": "Describe images in detail, by a vision-language model.",
        "cache": "Encode images and captions once, for training.",
        "inspect": "Show a data set on one HTML page: sizes, shapes, captions, licences, rejects, cost and pictures.",
        "convert": "Write a data set in another format: the same images with all that is known of them.",
    }


app = typer.Typer(cls=Data, no_args_is_help=True)


@app.callback()
def data() -> None:
    """Collect, import, caption, cache and inspect the images to train on."""

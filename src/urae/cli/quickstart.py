"""`urae quickstart`: the main job on the miniature."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from urae import quickstart as first
from urae.cli.printed import say
from urae.io import check_can_write

__all__ = ["quickstart"]


def quickstart(
    out: Annotated[Path, typer.Option(help="Folder for the data, adapters, pictures and report.")] = Path(
        "urae-quickstart"
    ),
    prompts: Annotated[int, typer.Option(min=2, help="How many prompts to draw each way.")] = 6,
) -> None:
    """Take the bundled miniature FLUX from 128 px to 256 and 512 px, and show the difference.

    First pictures within a minute, by the adapter that ships with it; the whole in six to nine minutes on two CPU
    cores. Interrupted, it continues where it was.

    Example: urae quickstart --out my-first-run
    """
    check_can_write(out, folder=True)
    result = first.quickstart(out, num_prompts=prompts, say=say)
    say(f"\ndone in {result.seconds / 60:.1f} minutes: open {result.report}")
    say(f"\nnext, draw something of your own:\n\n{result.next_command}")

"""`urae quickstart`: the main job on the miniature."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from urae.quickstart import quickstart as run_quickstart
from urae.quickstart.report import NEXT_COMMAND

__all__ = ["quickstart"]


def quickstart(
    out: Annotated[Path, typer.Option(help="Folder for the data, adapters, pictures and report.")] = Path(
        "urae-quickstart"
    ),
    prompts: Annotated[int, typer.Option(min=1, help="How many prompts to draw each way.")] = 6,
) -> None:
    """Take the bundled miniature FLUX from 128 px to 256 and 512 px, and show the difference.

    Six to nine minutes on two CPU cores. Interrupted, it continues where it was.

    Example: urae quickstart --out my-first-run
    """
    console = Console()
    result = run_quickstart(out, num_prompts=prompts, say=lambda line: console.print(f"[bold]{line}[/]"))
    console.print(
        f"\n[bold green]done[/] in {result.seconds / 60:.1f} minutes: open [bold]{result.report}[/]"
    )
    console.print("\nnext, draw something of your own:\n", highlight=False)
    console.print(NEXT_COMMAND.replace("urae-quickstart", str(out)), highlight=False, soft_wrap=True)

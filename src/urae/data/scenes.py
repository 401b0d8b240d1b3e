"""Data sets that are rendered rather than collected: scenes of the miniature's world, named in place of a
folder.

`mini:clean:384` is 384 truthfully captioned scenes of what the miniature knows (`urae.mini.familiar_scene`), as a
strong teacher gives them; `mini:real:384` the same scenes as the web gives them, some blurred, compressed,
watermarked or wrongly captioned.
"""

from __future__ import annotations

import re
from pathlib import Path

from urae.io import writing_folder
from urae.mini import Damage, familiar_scene, write_dataset

__all__ = ["is_scenes", "render_scenes", "scenes_named"]

DAMAGES = {"clean": None, "real": Damage()}


def is_scenes(source: str) -> bool:
    """Whether a source names scenes rather than a folder or file."""
    return source.startswith("mini:")


def scenes_named(source: str) -> tuple[str, int]:
    """Kind and number of the scenes that `source` names; `ValueError` for anything else."""
    match = re.fullmatch(r"mini:(\w+):([1-9]\d*)", source)
    if match is None or match[1] not in DAMAGES:
        raise ValueError(
            f"{source} names no scenes: expected mini:clean:N or mini:real:N, such as mini:clean:384"
        )
    return match[1], int(match[2])


def render_scenes(source: str, folder: Path, *, size: int) -> Path:
    """Render the scenes that `source` names at `size` px into a folder of their own below `folder`, unless
    they are there. Returns that folder."""
    kind, num = scenes_named(source)
    rendered = folder / f"{kind}-{num}-{size}px"
    if not rendered.is_dir():
        with writing_folder(rendered) as unfinished:
            write_dataset(unfinished, num, size, damage=DAMAGES[kind], draw=familiar_scene)
    return rendered

"""Which pictures of a list this process draws, under `torchrun` and after a stop.

Processes take turns in the list of what is not there yet, so their shares are of one length. A picture is there if a
file of its name was made the same way: since each picture depends on its prompt and seed alone, one from a run that
was stopped, on whatever number of processes, is as good as one drawn now.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from urae.execution import num_groups, on_main, share, this_process
from urae.generation.provenance import Provenance, claimed_provenance

__all__ = ["places_to_draw"]


def places_to_draw(
    planned: Sequence[Provenance],
    path_of: Callable[[Provenance], Path],
    *,
    keep: bool,
    context_parallel: int = 1,
) -> tuple[list[int], int]:
    """Places in the list of the pictures that this process draws, and how many all processes draw. Where
    `context_parallel` processes draw each picture together, a group of them counts as one. With `keep`, files that
    were made as planned stay and are not drawn.

    Raises ValueError for two pictures of one file, and for more groups than pictures.
    """
    paths = [path_of(made) for made in planned]
    _check(paths, num_groups(this_process().num_processes, context_parallel))
    left = on_main(
        lambda: [
            place
            for place, (path, made) in enumerate(zip(paths, planned, strict=True))
            if not (keep and _is_there(path, made))
        ]
    )
    return share(left, group_size=context_parallel), len(left)


def _check(paths: Sequence[Path], groups: int) -> None:
    if len(set(paths)) < len(paths):
        twice = next(path for path in paths if paths.count(path) > 1)
        raise ValueError(f"{twice.name} is asked for twice: give each prompt and each seed once")
    if groups > len(paths):
        raise ValueError(
            f"there are {len(paths)} pictures for {groups} processes or groups of processes: start fewer, or let "
            "several draw each picture together with context_parallel"
        )


def _is_there(path: Path, planned: Provenance) -> bool:
    there = claimed_provenance(path) if path.is_file() else None
    return there is not None and _what_decides(there, planned) == _what_decides(planned, planned)


def _what_decides(made: Provenance, planned: Provenance) -> dict[str, str]:
    """As a file holds it, without the names of things; a native picture that is still to be drawn has no hash."""
    tiles = "VAE in tiles" if "VAE in tiles" in made.memory else ""
    native = made.native if planned.native else ""
    return replace(made, adapter_file="", memory=tiles, native=native).to_info()

"""The files of a run's pictures: their names, which are there already, and which this process draws.

A prompt with an id gives its picture that name, which judges and benchmarks look for. Without one a name ends in a
short hash of all that decides the picture. So the same request is recognised, under `torchrun` and
after a stop too, and no other request takes its place. Processes take turns in the list of what is not there yet, so
their shares are of one length; since each picture depends on its prompt and seed alone, one from a run that was
stopped, on whatever number of processes, is as good as one drawn now.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import count, groupby
from pathlib import Path
from typing import Any

from urae.execution import num_groups, on_main, this_process
from urae.io import WRITTEN_FORMATS, check_can_write, check_format, read_picture
from urae.pages import SheetPart, sheet_page, tile_of
from urae.provenance import Provenance, claimed_provenance, save_picture

__all__ = ["PictureFiles", "contact_page"]


class PictureFiles:
    """In one folder, for a list of prompts. Where `context_parallel` processes draw each picture together, a group of
    them counts as one."""

    def __init__(
        self,
        folder: Path,
        prompts: Sequence[str] | Mapping[str, str],
        *,
        title: str = "",
        format: str = "png",
        context_parallel: int = 1,
    ) -> None:
        check_can_write(folder, folder=True)
        check_format(format, (1, 1))
        self.folder, self.title, self.format, self.context_parallel = folder, title, format, context_parallel
        self.ids = list(prompts) if isinstance(prompts, Mapping) else []
        prompts = list(prompts.values()) if isinstance(prompts, Mapping) else prompts
        self.numbers = {prompt: number for number, prompt in reversed(list(enumerate(prompts, 1)))}
        self.there: list[Path] = []
        """Those that were there already."""
        self.written: list[Path] = []
        self.paths: list[Path] = []
        """Of all pictures that are asked for, in the order of the plan, once `missing` has named them."""
        self._next: list[Path] = []

    def missing(self, planned: Sequence[Provenance]) -> list[int]:
        """Places of the pictures that this process draws, in the order in which it then saves them.

        Raises ValueError for a picture that is asked for twice, for an id by which another picture is called already,
        and for more groups than pictures.
        """
        state = this_process()
        groups = num_groups(state.num_processes, self.context_parallel)
        names = self._by_id(planned) if self.ids else [self._name(made) for made in planned]
        _check([f"{name}{WRITTEN_FORMATS[self.format]}" for name in names], groups)
        for made in planned:
            check_format(self.format, made.size)
        paths = on_main(lambda: [self._place(*one) for one in zip(names, planned, strict=True)])
        self.paths = [path for path, _ in paths]
        self.there = [path for path, is_there in paths if is_there]
        left = [place for place, (_, is_there) in enumerate(paths) if not is_there]
        mine = left[state.process_index // self.context_parallel :: groups]
        self._next = [paths[place][0] for place in reversed(mine)]
        return mine

    def save(self, image: Any) -> None:
        """Write a picture as soon as it is there, so that an interrupted run keeps what it has made.

        Of processes that drew it together the first writes.
        """
        path = self._next.pop()
        if this_process().process_index % self.context_parallel == 0:
            self.written.append(save_picture(image, path))
        image.close()  # a list of thousands would not fit into memory

    def _place(self, name: str, made: Provenance) -> tuple[Path, bool]:
        """Where a picture is or will be, and whether it is there; another picture of its name stays as it is."""
        ending = WRITTEN_FORMATS[self.format]
        for number in count(1):
            path = self.folder / (f"{name}{ending}" if number == 1 else f"{name}-{number}{ending}")
            if not path.exists():
                return path, False
            there = claimed_provenance(path)
            if there is not None and _what_decides(there, made) == _what_decides(made, made):
                return path, True
            if self.ids:
                raise ValueError(
                    f"{path} is another picture, or was made with other settings, and could be mistaken for this one: "
                    "give another folder"
                )
        raise AssertionError

    def _by_id(self, planned: Sequence[Provenance]) -> list[str]:
        """The id, with the seed where each prompt has several; all seeds of the first prompt come first."""
        seeds = len(planned) // len(self.ids)
        names = [name for name in self.ids for _ in range(seeds)]
        return [
            name if seeds == 1 else f"{name}-seed{made.seed}"
            for name, made in zip(names, planned, strict=True)
        ]

    def _name(self, made: Provenance) -> str:
        """Such as 1-a-flat-tiger-256x256-imax-seed0-5f0c9a31; the first number is the prompt's place in the list."""
        number = "" if self.title else str(self.numbers[made.prompt])
        words = re.sub(r"\W+", "-", (self.title or made.prompt).lower()).strip("-")[:40].strip("-")
        size, seed = f"{made.size[0]}x{made.size[1]}", f"seed{made.seed}"
        method = "" if made.method == "direct" else made.method
        known = json.dumps(_what_decides(made, made), sort_keys=True)
        digest = hashlib.sha256(known.encode()).hexdigest()[:8]
        return "-".join(filter(None, (number, words, size, method, seed, digest)))


def _check(names: Sequence[str], groups: int) -> None:
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice} is asked for twice: give each prompt and each seed once")
    if groups > len(names):
        raise ValueError(
            f"there are {len(names)} pictures for {groups} processes or groups of processes: start fewer, or let "
            "several draw each picture together with context_parallel"
        )


def _what_decides(made: Provenance, planned: Provenance) -> dict[str, str]:
    """As a file holds it, without the names of things; a native picture that is still to be drawn has no hash."""
    tiles = "VAE in tiles" if "VAE in tiles" in made.memory else ""
    native = made.native if planned.native else ""
    # What a drawn picture learns besides, names of files, and the order of a stack decide nothing.
    nameless = {"adapter_file": "", "native_file": "", "adapters": (), "kernels": "", "weights_hash": ""}
    return replace(made, memory=tiles, native=native, **nameless).to_info()  # type: ignore[arg-type]


def contact_page(made: Sequence[tuple[Path, Provenance]], *, beside: Path) -> str:
    """An HTML page of pictures by their files, for the folder `beside`: a part for each prompt with its seeds, each
    small picture a link to its file."""
    parts = []
    for prompt, group in groupby(made, key=lambda one: one[1].prompt):
        files = [(path, os.path.relpath(path, beside), f"seed {one.seed}") for path, one in group]
        tiles = [tile_of(read_picture(path), label=seed, file=name, crops=()) for path, name, seed in files]
        parts.append(SheetPart(heading=prompt, note="", tiles=tiles))
    title = parts[0].heading if len(parts) == 1 else f"{len(parts)} prompts"
    width, height = made[0][1].size
    return sheet_page(parts, title=title, note=f"{width} x {height} px, {made[0][1].method}")

"""The pictures of one `urae generate`: their files, which of them this process draws, and what became of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from urae.collecting import read_prompts
from urae.execution import this_process
from urae.generation import Provenance, save_png
from urae.generation.share import places_to_draw

__all__ = ["Pictures", "asked_for"]


def asked_for(prompts: list[str] | None, file: Path | None) -> list[str]:
    """The prompts of the command line or of a file; ValueError for both and for neither."""
    if prompts and file:
        raise ValueError(f"there are prompts on the command line and in {file}: give one or the other")
    if not (prompts or file):
        raise ValueError("nothing to draw: give a prompt in quotes, or --prompts FILE with one on each line")
    return read_prompts(file) if file else list(prompts or [])


class Pictures:
    """Of a list of prompts, all in one folder. With `keep`, those that are there already are not drawn again."""

    def __init__(self, folder: Path, prompts: list[str], *, keep: bool, context_parallel: int = 1) -> None:
        self.folder, self.keep, self.context_parallel = folder, keep, context_parallel
        self.numbers = {prompt: number for number, prompt in reversed(list(enumerate(prompts, 1)))}
        self.written: list[Path] = []

    def choose(
        self, planned: Sequence[Provenance], *, expect: Callable[[int], None], say: Callable[[str], None]
    ) -> list[int]:
        """Places of those that this process draws; tells how many that are, and what is left out."""
        places, num_left = places_to_draw(
            planned, self.path, keep=self.keep, context_parallel=self.context_parallel
        )
        if num_left < len(planned):
            say(f"{len(planned) - num_left} of {len(planned)} pictures are there already")
        expect(len(places))
        return places

    def save(self, image: Any, **more: str) -> None:
        """Write a picture as soon as it is there, so that an interrupted run keeps what it has made.

        `more` goes into its metadata. Of processes that drew it together the first writes.
        """
        path = self.path(Provenance.from_info(image.info))
        image.info.update(more)
        if this_process().process_index % self.context_parallel == 0:
            self.written.append(save_png(image, path))
        image.close()  # a list of thousands would not fit into memory

    def path(self, made: Provenance) -> Path:
        """Such as 1-a-flat-tiger-256x256-imax-seed0.png; the number is the prompt's place in the list."""
        words = re.sub(r"\W+", "-", made.prompt.lower()).strip("-")[:40].strip("-")
        size, seed = f"{made.size[0]}x{made.size[1]}", f"seed{made.seed}"
        method = "" if made.method == "direct" else made.method
        parts = (str(self.numbers[made.prompt]), words, size, method, seed)
        return self.folder / f"{'-'.join(filter(None, parts))}.png"

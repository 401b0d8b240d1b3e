"""A subject of one's own on the miniature: `python benchmarks/subject.py`.

Six pictures of an object that the model has never seen, an octopus upside down and in other colours, under a word that
it has never read are trained on by `mini_2x_subject`, on top of the 2x adapter; one of them is held out. What pictures
of the word show is asked of the recogniser, which knows the miniature's sixty objects alone: a picture turned back, in
shape and colours, shows it an octopus where it shows the subject, and one that is not turned does not. The same is
asked with the start alone. Pictures of the sixty objects with either say what was forgotten.

Shares come with Wilson's intervals. Writes benchmarks/results/subject.json, and pictures in .cache/benchmarks/subject.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from report import RESULTS, conditions, write

from urae import mini
from urae.adapters import Adapter
from urae.generation import plan_drawing
from urae.generation.asking import DrawingRequest
from urae.mini.recogniser import recogniser
from urae.mini.world import BACKGROUNDS, Scene, Thing, render, scene
from urae.recipes import mini_2x_subject
from urae.statistics.intervals import wilson
from urae.training import train

OBJECT, SIZE = "octopus", 256
WORK = Path(".cache/benchmarks/subject")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--start", default="mini:2x", help="the adapter to train on top of")
    parser.add_argument("--prompts", type=int, default=24)
    parser.add_argument("--steps", type=int, default=mini_2x_subject().steps)
    parser.add_argument("--lr", type=float, default=mini_2x_subject().lr)
    asked = parser.parse_args()
    recipe = mini_2x_subject(
        start=str(asked.start),
        data=str(WORK / "pictures"),
        out=str(WORK / "run"),
        steps=asked.steps,
        lr=asked.lr,
        sample_every=0,
    )
    write_pictures(Path(recipe.data), recipe.trigger)
    pipe = mini.pipeline()
    pipe.set_progress_bar_config(disable=True)
    subject = train(pipe, recipe)
    start = Adapter.load(asked.start, base=pipe)
    mine, others = subjects(asked.prompts), other_scenes(asked.prompts)
    shown = {("subject", "truth"): is_subject([pictured(one) for one in mine])}
    for name, adapter in (("start", start), ("subject's adapter", subject)):
        images = drawn(pipe, adapter, mine, recipe.trigger)
        shown["subject", name] = is_subject(images)
        shown["octopus as it is", name] = are_objects(images, [OBJECT] * len(images))
        keep(images, WORK / f"{name}.png")
        known = drawn(pipe, adapter, others)
        shown["the sixty", name] = are_objects(known, [one.things[0].name for one in others])
    rows = [
        {"shows": kind, "adapter": name, "hits": sum(hits), **asdict(wilson(sum(hits), len(hits)))}
        for (kind, name), hits in shown.items()
    ]
    for row in rows:
        low, high = row["low"], row["high"]
        print(f"{row['shows']}, {row['adapter']}: {row['value']:.0%} [{low:.0%}, {high:.0%}]")
    said = conditions(
        "subject", object=OBJECT, word=recipe.trigger, steps=recipe.steps, lr=recipe.lr, start=start.hash
    )
    write(RESULTS / "subject.json", {**said, "rows": rows})


def write_pictures(folder: Path, word: str) -> None:
    """Six, on as many backgrounds, whose captions say the word for the object."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, one in enumerate(subjects(6)):
        pictured(one).save(folder / f"{number}.png")
        text = {"prompt": one.caption().replace(OBJECT, word)}
        (folder / f"{number}.json").write_text(json.dumps(text))


def subjects(num: int) -> list[Scene]:
    """The object by itself, on every background in turn, larger and smaller."""
    grounds = sorted(BACKGROUNDS)
    return [
        Scene(
            things=(Thing(name=OBJECT, style="glossy", x=64, y=64, size=(88, 104)[place % 2]),),
            background=grounds[place % len(grounds)],
            label="",
        )
        for place in range(num)
    ]


def pictured(one: Scene) -> Image.Image:
    """The scene, its object turned, on the background as it is."""
    whole, ground = np.asarray(render(one, SIZE)), np.asarray(render(replace(one, things=()), SIZE))
    is_object = (whole != ground).any(-1)
    return Image.fromarray(np.where(np.flipud(is_object)[..., None], turned(whole), ground))


def turned(pixels: NDArray[np.uint8], *, back: bool = False) -> NDArray[np.uint8]:
    """Upside down, each colour channel in the next one's place."""
    return np.ascontiguousarray(np.flipud(pixels)[..., [2, 0, 1] if back else [1, 2, 0]])


def other_scenes(num: int) -> list[Scene]:
    """Single objects of the whole world."""
    return [scene(90_000 + seed, pairs=0, labels=0, sizes=(88, 104)) for seed in range(num)]


def drawn(pipe: Any, adapter: Adapter, scenes: Sequence[Scene], word: str = OBJECT) -> list[Image.Image]:
    prompts = [one.caption().replace(OBJECT, word) for one in scenes]
    asked = DrawingRequest(prompt=prompts, size=(SIZE, SIZE), steps=12, seed=0, adapter=adapter)
    return plan_drawing(pipe, asked).run()


def is_subject(images: Sequence[Image.Image]) -> list[bool]:
    back = [Image.fromarray(turned(np.asarray(image), back=True)) for image in images]
    return are_objects(back, [OBJECT] * len(back))


def are_objects(images: Sequence[Image.Image], wanted: Sequence[str]) -> list[bool]:
    found = recogniser().look(list(images), [1] * len(images))
    return [one.objects[0][0] == name for one, name in zip(found, wanted, strict=True)]


def keep(images: Sequence[Image.Image], path: Path) -> None:
    """A row of the first six."""
    row = np.concatenate([np.asarray(image) for image in images[:6]], axis=1)
    Image.fromarray(row).save(path)


if __name__ == "__main__":
    main()

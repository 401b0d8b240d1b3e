"""A subject of one's own on the miniature: `python benchmarks/subject.py --start out/mini_2x/adapter.safetensors`.

Six pictures of one object under a word that the model has never read are trained on by `mini_2x_subject`, on top of the
2x adapter; one of them is held out. Then the recogniser says what pictures of the word show, with the start alone and
with the subject's adapter, and what pictures of other objects show with either: what was forgotten. The object is
one of the miniature's sixty, since the recogniser knows no other: what is new is the word.

Shares come with Wilson's intervals. Writes benchmarks/results/subject.json.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from report import RESULTS, conditions, write

from urae import mini
from urae.adapters import Adapter
from urae.generation import plan_drawing
from urae.generation.asking import DrawingRequest
from urae.mini.recogniser import recogniser
from urae.mini.world import BACKGROUNDS, OBJECTS, Scene, Thing, render, scene
from urae.recipes import mini_2x_subject
from urae.statistics.intervals import wilson
from urae.training import train

OBJECT, SIZE = "octopus", 256
WORK = Path(".cache/benchmarks/subject")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--start", type=Path, required=True)
    parser.add_argument("--prompts", type=int, default=24)
    parser.add_argument("--steps", type=int, default=mini_2x_subject().steps)
    asked = parser.parse_args()
    recipe = mini_2x_subject(
        start=str(asked.start),
        data=str(WORK / "pictures"),
        out=str(WORK / "run"),
        steps=asked.steps,
        sample_every=0,
    )
    write_pictures(Path(recipe.data), recipe.trigger)
    pipe = mini.pipeline()
    pipe.set_progress_bar_config(disable=True)
    subject = train(pipe, recipe)
    start = Adapter.load(asked.start, base=pipe)
    mine, others = subjects(asked.prompts), other_scenes(asked.prompts)
    shown = {
        (kind, name): seen(pipe, adapter, scenes, recipe.trigger if kind == "subject" else "")
        for name, adapter in (("start", start), ("subject's adapter", subject))
        for kind, scenes in (("subject", mine), ("others", others))
    }
    rows = [
        {"prompts": kind, "adapter": name, "hits": sum(hits), **asdict(wilson(sum(hits), len(hits)))}
        for (kind, name), hits in shown.items()
    ]
    for row in rows:
        low, high = row["low"], row["high"]
        print(f"{row['prompts']}, {row['adapter']}: {row['value']:.0%} [{low:.0%}, {high:.0%}]")
    said = conditions("subject", object=OBJECT, word=recipe.trigger, steps=recipe.steps, start=start.hash)
    write(RESULTS / "subject.json", {**said, "rows": rows})


def write_pictures(folder: Path, word: str) -> None:
    """Six, on as many backgrounds, whose captions say the word for the object."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, one in enumerate(subjects(6)):
        render(one, SIZE).save(folder / f"{number}.png")
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


def other_scenes(num: int) -> list[Scene]:
    """Single objects of the whole world but for this one."""
    names = [name for name in OBJECTS if name != OBJECT]
    return [scene(90_000 + seed, pairs=0, labels=0, objects=names, sizes=(88, 104)) for seed in range(num)]


def seen(pipe: Any, adapter: Adapter, scenes: list[Scene], word: str) -> list[bool]:
    """Whether each picture shows the scene's object."""
    prompts = [one.caption().replace(OBJECT, word) if word else one.caption() for one in scenes]
    asked = DrawingRequest(prompt=prompts, size=(SIZE, SIZE), steps=12, seed=0, adapter=adapter)
    images = plan_drawing(pipe, asked).run()
    found = recogniser().look(images, [1] * len(images))
    return [one.objects[0][0] == wanted.things[0].name for one, wanted in zip(found, scenes, strict=True)]

"""Pictures at the native size: what the recogniser finds in them, with guidance 3.5 and with 1."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

from aims import Aim, at_least, more
from pictures import (
    FIRST_PROMPT,
    SHARES,
    Draw,
    Row,
    Rows,
    by_way,
    differences,
    drawings,
    picture_of,
    recorded,
    save_sheet,
    share,
    sheet,
)
from PIL import Image

from parts.bench import Bench, Part
from urae.generation import Direct, Way
from urae.mini import familiar_scene, render, scene
from urae.mini.model import NATIVE_SIZE

NUM_PROMPTS = 500
GUIDED, UNGUIDED = "guidance 3.5", "guidance 1"
WORLD, WORLD_UNGUIDED = f"whole world, {GUIDED}", f"whole world, {UNGUIDED}"


class Unguided(Direct):
    """The direct method where nothing is guided."""

    guidance: ClassVar[float] = 1.0


def native(bench: Bench) -> Way:
    """The stock pipeline at its native size; `parts.sizes` finds the same pictures."""
    return Way(label=GUIDED, method=Direct(), policy="none", steps=bench.steps, compile=bench.compile)


def samples(bench: Bench) -> Part:
    """500 prompts of familiar scenes with each guidance, and 500 of the whole world, pairs and labels included."""
    folder, num = bench.folder("samples"), bench.prompts or NUM_PROMPTS
    guided = native(bench)
    unguided = replace(guided, label=UNGUIDED, method=Unguided())
    wide = [replace(guided, label=WORLD), replace(unguided, label=WORLD_UNGUIDED)]
    settings: dict[str, Any] = {"side": NATIVE_SIZE, "judge": bench.judge, "folder": folder}
    settings["more"] = lambda way: bench.drawn_by
    wanted = drawings(bench.pipe, [guided, unguided], prompts=num, **settings)
    wanted |= drawings(bench.pipe, wide, prompts=num, draw=scene, **settings)
    rows = recorded(wanted, folder)
    found: dict[str, Row] = {}
    for column in (*SHARES, "relation"):
        for way, values in by_way(rows, column).items():
            found.setdefault(way, {"way": way, "prompts": len(values)})[column] = share(values)
    _pictures(bench, rows)
    pairs = {
        "familiar scenes, guidance 3.5 less 1": (GUIDED, UNGUIDED),
        "whole world, guidance 3.5 less 1": (WORLD, WORLD_UNGUIDED),
    }
    effects = {name: differences(rows, name, pairs) for name in SHARES}
    return Part(
        aims=_aims(found, effects["object"]),
        tables={"Shares of pictures that show what the prompt says": list(found.values())},
        differences={f"Guidance, {name}:": effect for name, effect in effects.items() if effect},
    )


def _aims(found: dict[str, Row], effects: dict[str, Row]) -> list[Aim]:
    """What was asked of the whole world is asked of familiar scenes too."""
    asked = {"object": 0.85, "background": 0.95, "relation": 0.60}
    aims = [
        at_least(f"128 px samples, {column}, {name}", bound, found[way][column])
        for way, name in ((GUIDED, "familiar scenes"), (WORLD, "whole world"))
        for column, bound in asked.items()
        if column in found[way]
    ]
    return aims + [more(f"128 px samples, object, {name}", effect) for name, effect in effects.items()]


def _pictures(bench: Bench, rows: Rows) -> None:
    """The first eight prompts, not the best."""
    _sheet(bench, rows, [GUIDED, UNGUIDED], familiar_scene, "miniature-samples.png")
    _sheet(bench, rows, [WORLD], scene, "miniature-world.png")


def _sheet(bench: Bench, rows: Rows, ways: list[str], draw: Draw, name: str) -> None:
    scenes = [draw(FIRST_PROMPT + i) for i in range(min(8, bench.prompts or NUM_PROMPTS))]
    files = {(row["way"], row["prompt"]): picture_of(row, bench.folder("samples")) for row in rows}
    lines = {way: [Image.open(files[way, i]) for i in range(len(scenes))] for way in ways}
    lines["truth"] = [render(one, NATIVE_SIZE) for one in scenes]
    captions = [one.caption() for one in scenes]
    save_sheet(sheet(lines, captions, cell=NATIVE_SIZE), bench.images / name)

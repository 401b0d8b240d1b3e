"""The recogniser that judges all pictures, on held-out true scenes of the whole world."""

from __future__ import annotations

from functools import partial

from aims import Aim, at_least
from pictures import SHARES, Row, by_way, recorded, share, verdict

from parts.bench import Bench, Part
from urae.mini import render, scene
from urae.mini.recogniser import Recogniser
from urae.mini.train.progress import HELD_OUT

NUM_SCENES = 500
SIZES = (128, 256, 512)
COLUMNS = (*SHARES, "relation")


def recogniser(bench: Bench) -> Part:
    """Shares of scenes whose objects, styles, background and relation it tells rightly, at each size."""
    wanted = {
        (bench.identity("recogniser", side), i): partial(_row, bench.judge, side, i)
        for i in range(bench.scenes or NUM_SCENES)
        for side in SIZES
    }
    rows = recorded(wanted, bench.folder("recogniser"))
    found: dict[str, Row] = {f"{side} px": {"way": f"{side} px"} for side in SIZES}
    for column in COLUMNS:
        for way, values in by_way(rows, column).items():
            found[way][column] = share(values)
    return Part(
        aims=[_aim(column, list(found.values())) for column in COLUMNS if column in found["128 px"]],
        tables={
            "Shares of held-out true scenes; the relation where a scene has two objects": list(found.values())
        },
        differences={},
    )


def _aim(column: str, rows: list[Row]) -> Aim:
    worst = min((row[column] for row in rows), key=lambda share: share["value"])
    return at_least(f"recogniser, {column} on held-out truth, the worst of three sizes", 0.98, worst)


def _row(judge: Recogniser, side: int, number: int) -> Row:
    truth = scene(HELD_OUT + number)
    return {"way": f"{side} px", "prompt": number, **verdict(judge, render(truth, side), truth)}

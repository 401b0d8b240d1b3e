"""What caches and a rounded base save on the miniature, and change: `python benchmarks/speed.py`.

Draws the same prompts with the same seeds exactly, with each cache, and exactly on a base in each format of
`base_weights`; and measures for each: the share of the transformer's blocks that ran, CPU seconds beside those of
exact, the mean difference of its pictures to the exact ones in grey levels (0 to 255) and in dB (PSNR), what the
recogniser sees, and the distance of the pictures' patches to those of other, true scenes. Above the miniature's
native 128 px it runs without an adapter unless one is given.

Each picture and its numbers are in .cache/benchmarks/speed/ as soon as they are there; the same command goes on where
it was. Writes benchmarks/results/speed.json and speed.md.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from pictures import (
    CACHE,
    DISTANCE,
    SHARES,
    Key,
    Row,
    Rows,
    by_way,
    drawings,
    estimate,
    identity,
    patch_distances,
    picture_of,
    recorded,
    table,
)
from PIL import Image
from report import RESULTS, conditions, write

from urae import mini
from urae.adapters import Adapter
from urae.execution import FirstBlock, TaylorSeer, quantised, speed_text
from urae.execution.choices import Format
from urae.generation import Direct, Way
from urae.mini.recogniser import recogniser

EXACT = "exact"
CACHES = (
    TaylorSeer(interval=2, order=1),
    TaylorSeer(interval=3, order=1),
    TaylorSeer(interval=4, order=1),
    TaylorSeer(interval=5, order=1),
    TaylorSeer(interval=4, order=2),
    FirstBlock(threshold=0.08),
    FirstBlock(threshold=0.12),
    FirstBlock(threshold=0.2),
)
ROUNDED = {f"base_weights {kind}": kind for kind in get_args(Format)}
"""Label -> format."""
COLUMNS = ("blocks", "cpu", "difference", "psnr", *SHARES, DISTANCE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--sizes", type=int, nargs="*", default=[256, 512])
    parser.add_argument("--steps", type=int, default=28)
    parser.add_argument("--adapter", type=Path, help="drawn with it in every way")
    parser.add_argument("--out", type=Path, default=RESULTS / "speed.json")
    options = parser.parse_args()
    pipe = mini.pipeline()
    pipe.set_progress_bar_config(disable=True)
    adapter = Adapter.load(options.adapter, base=pipe) if options.adapter else None
    sizes = {side: at_size(pipe, side, adapter, options) for side in options.sizes}
    given = f"--prompts {options.prompts} --sizes {' '.join(map(str, options.sizes))} --steps {options.steps}"
    if adapter:
        given += f" --adapter {options.adapter.name}"
    result = {
        **conditions("speed", command=f"python benchmarks/speed.py {given}", prompts=options.prompts),
        "sizes": sizes,
    }
    write(options.out, result)
    write(options.out.with_suffix(".md"), markdown(result))


def at_size(
    pipe: Any, side: int, adapter: Adapter | None, options: argparse.Namespace
) -> list[Mapping[str, Any]]:
    """A line for each way at this size."""
    folder = CACHE / "speed"
    ways = list(ways_of(adapter, options.steps))
    wanted = drawings(pipe, ways, prompts=options.prompts, side=side, judge=recogniser(), folder=folder)
    labels = {identity(pipe, way, side): way.label for way in ways}
    rounded = {key: partial(on_base, pipe, ROUNDED.get(labels[key[0]]), make) for key, make in wanted.items()}
    rows = recorded(counting(rounded, pipe.transformer), folder)
    return summary(compared(rows, folder), patch_distances(rows, side, folder))


def ways_of(adapter: Adapter | None, steps: int) -> Iterator[Way]:
    """Exact, each cache with the speed as its label, and each format of the base."""
    exact = Way(label=EXACT, method=Direct(), adapter=adapter, steps=steps)
    yield exact
    for cache in CACHES:
        yield replace(exact, label=speed_text(cache), speed=cache)
    for label in ROUNDED:
        yield replace(exact, label=label)


def on_base(pipe: Any, kind: Format | None, make: Callable[[], Row]) -> Row:
    """The row with the transformer's matrices in this format, which takes no part of the seconds."""
    with quantised(pipe, kind) if kind else nullcontext():
        return make()


def counting(wanted: Mapping[Key, Callable[[], Row]], transformer: Any) -> dict[Key, Callable[[], Row]]:
    """The same, with the number of blocks that ran."""

    def counted(make: Callable[[], Row]) -> Row:
        with blocks_counted(transformer) as ran:
            row = make()
        return {**row, "blocks": len(ran)}

    return {key: partial(counted, make) for key, make in wanted.items()}


@contextmanager
def blocks_counted(transformer: Any) -> Iterator[list[int]]:
    """An entry for each block that computes: a cache that leaves it out does not reach its attention."""
    ran: list[int] = []
    blocks = (*transformer.transformer_blocks, *transformer.single_transformer_blocks)
    hooks = [block.attn.register_forward_hook(lambda *_: ran.append(1)) for block in blocks]
    try:
        yield ran
    finally:
        for hook in hooks:
            hook.remove()


def compared(rows: Rows, folder: Path) -> Rows:
    """The rows with their cost and picture beside those of exact on the same prompt."""
    exact = {row["prompt"]: row for row in rows if row["way"] == EXACT}
    return [{**row, **beside(row, exact[row["prompt"]], folder)} for row in rows]


def beside(row: Row, exact: Row, folder: Path) -> Row:
    """Ratios of blocks and CPU seconds, mean absolute difference in grey levels, and PSNR where there is one."""
    ratios = {"blocks": row["blocks"] / exact["blocks"], "cpu": row["cpu_seconds"] / exact["cpu_seconds"]}
    here, there = (np.asarray(Image.open(picture_of(one, folder)), dtype=float) for one in (row, exact))
    if row is exact:
        return ratios | {"difference": 0.0}
    error = float(((here - there) ** 2).mean())
    psnr = {"psnr": 10 * math.log10(255**2 / error)} if error else {}
    return ratios | {"difference": float(np.abs(here - there).mean())} | psnr


def summary(rows: Rows, distances: Mapping[str, Mapping[str, float]]) -> list[dict[str, Any]]:
    """Means with intervals over prompts."""
    lines: dict[str, dict[str, Any]] = {}
    for column in COLUMNS:
        for way, values in by_way(rows, column).items():
            lines.setdefault(way, {"way": way, "prompts": len(values)})[column] = estimate(values)
    for way, distance in distances.items():
        lines[way][DISTANCE] = distance
    return list(lines.values())


def markdown(result: Mapping[str, Any]) -> str:
    lines = [
        f"# Caches and rounded bases on the miniature, {result['prompts']} prompts",
        "",
        f"`{result['command']}`, {result['date'][:10]}, {result['machine']}, commit {result['commit']}, torch "
        f"{torch.__version__}. blocks and cpu: share of exact's transformer blocks and CPU seconds. difference: mean "
        "absolute, of 255. psnr in dB. [95% interval] over prompts.",
    ]
    for side, rows in result["sizes"].items():
        columns = [name for name in COLUMNS if any(name in row for row in rows)]
        lines += ["", f"## {side} px", "", *table(rows, columns)]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()

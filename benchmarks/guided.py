"""The methods on the miniature, each with and without an adapter: `python benchmarks/guided.py --adapter FILE`.

Draws the quickstart's prompts, which no training has seen, every way with the same seed, and measures on each picture
what the recogniser sees (object, style and background as the prompt says), repetition, detail, transformer calls, and
CPU seconds, which stay meaningful on a busy machine; and on each way's pictures together the distance of their patches
to those of other, true scenes. A two-pass method is charged for its native pass. Means come with bootstrap intervals
over prompts, and adapter against none is compared on the same prompts, corrected for the number of comparisons.

Each picture and its numbers are in .cache/benchmarks/guided/ as soon as they are there; the same command goes on where
it was. Writes benchmarks/results/guided.json and guided.md; and with an adapter
docs/images/guided.png, the first prompts by every method.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pictures import (
    CACHE,
    DISTANCE,
    DTYPES,
    FIRST_PROMPT,
    MEASURES,
    SHARES,
    Rows,
    by_way,
    difference_table,
    differences,
    drawings,
    estimate,
    patch_distances,
    picture_of,
    recorded,
    save_sheet,
    sheet,
    table,
)
from PIL import Image
from report import RESULTS, conditions, write

from urae import mini
from urae.adapters import Adapter
from urae.generation import Direct, TwoPass, Way
from urae.generation.methods import METHODS
from urae.mini.recogniser import recogniser

COLUMNS = (*SHARES, *MEASURES, "cpu_seconds", "calls")
COMPARED = ["stock", "direct", "tiled", "sdedit", "imax", "hiflow"]
ADAPTED = " + adapter"
NUM_SHOWN, CELL = 4, 150
"""Prompts on the sheet, and pixels of a picture there."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--adapter", type=Path, help="a 4x adapter; without it each method is drawn alone")
    parser.add_argument("--start", type=Path, help="what was fused before the adapter's training")
    parser.add_argument("--methods", nargs="*", default=COMPARED)
    parser.add_argument("--steps", type=int, help="in place of each method's own, for a trial")
    parser.add_argument("--native-steps", type=int, help="the same for the native pass")
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--dtype", choices=DTYPES, default="fp32", help="bf16 where the processor computes it"
    )
    parser.add_argument("--compile", action="store_true", help="compile the transformer's blocks")
    parser.add_argument("--out", type=Path, default=RESULTS / "guided.json")
    parser.add_argument("--images", type=Path, default=RESULTS.parents[1] / "docs" / "images")
    options = parser.parse_args()
    pipe = mini.pipeline(DTYPES[options.dtype]).to(options.device)
    pipe.set_progress_bar_config(disable=True)
    adapter = Adapter.load(options.adapter, base=pipe, start=options.start) if options.adapter else None
    ways = list(ways_of(options, adapter))
    folder = CACHE / "guided"
    wanted = drawings(
        pipe,
        ways,
        prompts=options.prompts,
        side=options.size,
        judge=recogniser(),
        folder=folder,
        more=lambda way: [options.dtype, *["compiled"] * options.compile],
    )
    rows = recorded(wanted, folder)
    distances = patch_distances(rows, options.size, folder)
    result = {
        **conditions(
            "guided",
            command=command(options),
            size=options.size,
            dtype=options.dtype,
            compiled=options.compile,
            prompts=options.prompts,
            adapter_hash=adapter.hash if adapter else "",
        ),
        "rows": summary(rows, distances),
        "adapter_effects": effects(rows),
    }
    write(options.out, result)
    write(options.out.with_suffix(".md"), markdown(result))
    if adapter:
        save_sheet(overview(rows, options.methods, folder), options.images / "guided.png")


def ways_of(options: argparse.Namespace, adapter: Adapter | None) -> Iterator[Way]:
    """Each method alone and with the adapter; "stock" is the direct method without a policy."""
    for name in options.methods:
        method = Direct() if name == "stock" else METHODS[name]()
        if options.native_steps and isinstance(method, TwoPass):
            method = replace(method, native_steps=options.native_steps)
        policy = "none" if name == "stock" else "auto"
        plain = Way(
            label=name,
            method=method,
            policy=policy,
            steps=options.steps or "auto",
            compile=options.compile or "auto",
        )
        yield plain
        if adapter:
            yield replace(plain, label=name + ADAPTED, adapter=adapter)


def summary(rows: Rows, distances: Mapping[str, Mapping[str, float]]) -> list[dict[str, Any]]:
    """Means with intervals; without them where there are too few prompts for any."""
    lines: dict[str, dict[str, Any]] = {}
    for column in COLUMNS:
        for way, values in by_way(rows, column).items():
            lines.setdefault(way, {"way": way, "prompts": len(values)})[column] = estimate(values)
    for way, distance in distances.items():
        lines[way][DISTANCE] = distance
    return list(lines.values())


def effects(rows: Rows) -> dict[str, dict[str, Any]]:
    """What the adapter changes in each method: paired differences, Holm's correction over methods."""
    labels = {row["way"] for row in rows}
    pairs = {way: (way + ADAPTED, way) for way in by_way(rows, "object") if way + ADAPTED in labels}
    found = {column: differences(rows, column, pairs) for column in ("object", "background", "repetition")}
    return {column: methods for column, methods in found.items() if methods}


def overview(rows: Rows, methods: Sequence[str], folder: Path) -> Image.Image:
    """The first prompts by every method, alone and with the adapter."""
    files = {(row["way"], row["prompt"]): picture_of(row, folder) for row in rows}
    prompts = range(min(NUM_SHOWN, 1 + max(row["prompt"] for row in rows)))
    lines = {
        name: [Image.open(files[name + end, i]) for i in prompts for end in ("", ADAPTED)] for name in methods
    }
    captions = [mini.familiar_scene(FIRST_PROMPT + i).caption() for i in prompts]
    return sheet(lines, [words for caption in captions for words in (caption, "with the adapter")], cell=CELL)


def markdown(result: Mapping[str, Any]) -> str:
    columns = [name for name in (*COLUMNS, DISTANCE) if name in result["rows"][0]]
    lines = [
        f"# The methods on the miniature, {result['size']} px, {result['prompts']} prompts",
        "",
        f"`{result['command']}`, {result['date'][:10]}, {result['machine']}, commit {result['commit']}. Shares of "
        "pictures whose object, style and background are those of the prompt; [95% interval] over prompts. CPU seconds "
        "include the native pass.",
        "",
        *table(result["rows"], columns),
    ]
    for column, methods in result["adapter_effects"].items():
        lines += difference_table(f"What the adapter changes, {column}:", methods)
    return "\n".join(lines) + "\n"


def command(options: argparse.Namespace) -> str:
    given = [f"--prompts {options.prompts}", f"--size {options.size}"]
    given += [f"--{name} {value.name}" for name in ("adapter", "start") if (value := getattr(options, name))]
    given += [f"--methods {' '.join(options.methods)}"] if options.methods != COMPARED else []
    given += [f"--dtype {options.dtype}"] if options.dtype != "fp32" else []
    given += ["--compile"] if options.compile else []
    given += [
        f"--{name.replace('_', '-')} {getattr(options, name)}"
        for name in ("steps", "native_steps")
        if getattr(options, name)
    ]
    return " ".join(["python benchmarks/guided.py", *given])


if __name__ == "__main__":
    main()

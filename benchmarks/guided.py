"""The methods on the miniature, each with and without an adapter: `python benchmarks/guided.py --adapter FILE`.

Draws the quickstart's prompts, which no training has seen, every way with the same seed, and measures on each picture
what the recogniser sees (object, style and background as the prompt says), repetition, detail, transformer calls, and
CPU seconds, which stay meaningful on a busy machine; and on each way's pictures together the distance of their patches
to those of other, true scenes. A two-pass method is charged for its native pass. Means come with bootstrap intervals
over prompts, and adapter against none is compared on the same prompts, corrected for the number of comparisons.

Each picture and its numbers are in .cache/benchmarks/guided/ as soon as they are there; the same command goes on where
it was. Writes benchmarks/results/guided.json and guided.md.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from report import RESULTS, conditions, write

from urae import mini
from urae.adapters import Adapter
from urae.adapters.base import base_of
from urae.data import Progress
from urae.evaluation import detail, evaluate, mean, repetition
from urae.evaluation.statistics import MIN_PROMPTS, adjusted, compare
from urae.generation import Direct, TwoPass, Way, plan_memory, save_png
from urae.generation.compare import drawn
from urae.generation.methods import METHODS, options_of
from urae.mini.recogniser import Recogniser, recogniser

CACHE = Path(__file__).parents[1] / ".cache" / "benchmarks"
FIRST_PROMPT = 2_000_000
"""Seed of the first prompt's scene, as in the quickstart: beyond everything that is trained on."""
SHARES = ("object", "style", "background")
MEASURES: Mapping[str, Callable] = {"repetition": repetition, "detail": detail}
COLUMNS = (*SHARES, *MEASURES, "cpu_seconds", "calls")
DISTANCE = "mini_patch_fid"
NUM_TRUTHS, FIRST_TRUTH = 400, 3_000_000
"""True scenes whose patches are the reference, and the seed of the first: other scenes than the prompts'."""
ADAPTED = " + adapter"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--adapter", type=Path, help="a 4x adapter; without it each method is drawn alone")
    parser.add_argument("--start", type=Path, help="what was fused before the adapter's training")
    parser.add_argument(
        "--methods", nargs="*", default=["stock", "direct", "tiled", "sdedit", "imax", "hiflow"]
    )
    parser.add_argument("--steps", type=int, help="in place of each method's own, for a trial")
    parser.add_argument("--native-steps", type=int, help="the same for the native pass")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=RESULTS / "guided.json")
    options = parser.parse_args()
    pipe = mini.pipeline().to(options.device)
    pipe.set_progress_bar_config(disable=True)
    adapter = Adapter.load(options.adapter, base=pipe, start=options.start) if options.adapter else None
    ways = list(ways_of(options, adapter))
    rows = measured(pipe, ways, options, CACHE / "guided")
    distances = patch_distances(rows, options, CACHE / "guided")
    result = {
        **conditions(
            "guided",
            command=command(options),
            size=options.size,
            prompts=options.prompts,
            adapter_hash=adapter.hash if adapter else "",
        ),
        "rows": summary(rows, distances),
        "adapter_effects": effects(rows),
    }
    write(options.out, result)
    write(options.out.with_suffix(".md"), markdown(result))


def ways_of(options: argparse.Namespace, adapter: Adapter | None) -> Iterator[Way]:
    """Each method alone and with the adapter; "stock" is the direct method without a policy."""
    for name in options.methods:
        method = Direct() if name == "stock" else METHODS[name]()
        if options.native_steps and isinstance(method, TwoPass):
            method = replace(method, native_steps=options.native_steps)
        policy = "none" if name == "stock" else "auto"
        plain = Way(label=name, method=method, policy=policy, steps=options.steps or "auto")
        yield plain
        if adapter:
            yield replace(plain, label=name + ADAPTED, adapter=adapter)


def identity(pipe: Any, way: Way, side: int) -> str:
    """A hash of all that the numbers of a way's pictures depend on but the prompt."""
    base, adapter = base_of(pipe.transformer), way.adapter.hash if way.adapter else ""
    versions = [torch.__version__, base.config, base.weights]
    known = [*versions, side, way.label, way.steps, options_of(way.method), adapter]
    return hashlib.sha256(json.dumps(known, default=str).encode()).hexdigest()[:12]


def measured(pipe: Any, ways: list[Way], options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """The numbers of every picture, those that are in the folder already included."""
    path = folder / "rows.jsonl"
    wanted = {(identity(pipe, way, options.size), i): way for i in range(options.prompts) for way in ways}
    rows = [row for row in kept(path) if (row["identity"], row["prompt"]) in wanted]
    known = {(row["identity"], row["prompt"]) for row in rows}
    judge = recogniser()
    with Progress("pictures", total=len(wanted), done=len(known)) as progress, path.open("a") as file:
        for (name, i), way in wanted.items():
            if (name, i) not in known:
                row = {"identity": name, **row_of(pipe, way, i, options.size, judge, folder / name)}
                file.write(json.dumps(row) + "\n")
                file.flush()
                rows.append(row)
                progress.advance(way.label)
    return rows


def kept(path: Path) -> list[dict[str, Any]]:
    """The rows of the file, without the beginning of one at whose writing the run was stopped."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = path.read_text() if path.exists() else ""
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        path.write_text(whole)
    return [json.loads(line) for line in whole.splitlines()]


def row_of(pipe: Any, way: Way, number: int, side: int, judge: Recogniser, folder: Path) -> dict[str, Any]:
    """The numbers of one picture, which goes into the folder."""
    scene, size = mini.familiar_scene(FIRST_PROMPT + number), (side, side)
    started = time.process_time()
    outcome = drawn(
        pipe,
        scene.caption(),
        way,
        size=size,
        seed=number,
        measures=MEASURES,
        memory=plan_memory(pipe, size),
    )
    cpu_seconds = time.process_time() - started
    save_png(outcome.image, folder / f"{number:04d}.png")
    verdict = judge.look([outcome.image], [len(scene.things)])[0].agrees(scene)
    return {
        "way": way.label,
        "prompt": number,
        **{name: float(verdict[name]) for name in SHARES},
        **outcome.numbers,
        "seconds": round(outcome.seconds, 2),
        "cpu_seconds": round(cpu_seconds, 2),
        "native_seconds": round(outcome.native_seconds, 2),
        "calls": outcome.calls,
        "tokens": outcome.tokens,
    }


def patch_distances(
    rows: list[dict[str, Any]], options: argparse.Namespace, folder: Path
) -> dict[str, dict[str, float]]:
    """way -> distance of its pictures' patches to those of true scenes, with its interval."""
    truths = folder / f"truth-{options.size}"
    for i in range(NUM_TRUTHS):
        file = truths / f"{i:04d}.png"
        if not file.exists():
            save_png(mini.render(mini.familiar_scene(FIRST_TRUTH + i), options.size), file)
    pictures: dict[str, list[Path]] = {}
    for row in sorted(rows, key=lambda row: row["prompt"]):
        pictures.setdefault(row["way"], []).append(folder / row["identity"] / f"{row['prompt']:04d}.png")
    if any(len(files) < MIN_PROMPTS for files in pictures.values()):
        return {}
    against, cache = {"truth": truths}, folder / "features"
    table = evaluate(pictures, "names", metrics=[DISTANCE], against=against, cache=cache)
    cells = {way: next(iter(row.values())) for way, row in table.cells.items()}
    return {way: {"value": cell.value, "low": cell.low, "high": cell.high} for way, cell in cells.items()}


def by_way(rows: list[dict[str, Any]], column: str) -> dict[str, dict[str, float]]:
    """way -> prompt -> value."""
    ways: dict[str, dict[str, float]] = {}
    for row in sorted(rows, key=lambda row: row["prompt"]):
        ways.setdefault(row["way"], {})[str(row["prompt"])] = row[column]
    return ways


def summary(rows: list[dict[str, Any]], distances: Mapping[str, Mapping[str, float]]) -> list[dict[str, Any]]:
    """Means with intervals; without them where there are too few prompts for any."""
    lines: dict[str, dict[str, Any]] = {}
    for column in COLUMNS:
        for way, values in by_way(rows, column).items():
            enough = len(values) >= MIN_PROMPTS
            value = asdict(mean(values)) if enough else {"value": sum(values.values()) / len(values)}
            lines.setdefault(way, {"way": way, "prompts": len(values)})[column] = value
    for way, distance in distances.items():
        lines[way][DISTANCE] = distance
    return list(lines.values())


def effects(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """What the adapter changes in each method: paired differences, Holm's correction over methods."""
    found: dict[str, dict[str, Any]] = {}
    for column in ("object", "background", "repetition"):
        ways = by_way(rows, column)
        pairs = {way: (ways[way + ADAPTED], values) for way, values in ways.items() if way + ADAPTED in ways}
        if any(len(values) < MIN_PROMPTS for values in ways.values()):
            continue
        results = adjusted({way: compare(with_it, without) for way, (with_it, without) in pairs.items()})
        found[column] = {way: {**asdict(result), "real": result.real} for way, result in results.items()}
    return found


def markdown(result: Mapping[str, Any]) -> str:
    columns = [name for name in (*COLUMNS, DISTANCE) if name in result["rows"][0]]
    lines = [
        f"# The methods on the miniature, {result['size']} px, {result['prompts']} prompts",
        "",
        f"`{result['command']}`, {result['date'][:10]}, {result['machine']}, commit {result['commit']}. Shares of "
        "pictures whose object, style and background are those of the prompt; [95% interval] over prompts. CPU seconds "
        "include the native pass.",
        "",
        "| way | " + " | ".join(columns) + " |",
        "|---|" + "---:|" * len(columns),
    ]
    lines += [
        f"| {row['way']} | " + " | ".join(shown(row[name]) for name in columns) + " |"
        for row in result["rows"]
    ]
    for column, methods in result["adapter_effects"].items():
        lines += [
            "",
            f"What the adapter changes, {column}:",
            "",
            "| way | difference | p, corrected | real |",
        ]
        lines.append("|---|---:|---:|---|")
        for way, effect in methods.items():
            difference = shown(effect["difference"])
            real = "yes" if effect["real"] else "no"
            lines.append(f"| {way} | {difference} | {effect['p_adjusted']:.2g} | {real} |")
    return "\n".join(lines) + "\n"


def shown(value: Mapping[str, float]) -> str:
    is_sure = value.get("low") == value.get("high")  # the same for every prompt, or too few prompts to tell
    interval = "" if is_sure else f" [{value['low']:.3g}, {value['high']:.3g}]"
    return f"{value['value']:.3g}{interval}"


def command(options: argparse.Namespace) -> str:
    given = [f"--prompts {options.prompts}", f"--size {options.size}"]
    given += [f"--{name} {value.name}" for name in ("adapter", "start") if (value := getattr(options, name))]
    given += [
        f"--{name.replace('_', '-')} {getattr(options, name)}"
        for name in ("steps", "native_steps")
        if getattr(options, name)
    ]
    return " ".join(["python benchmarks/guided.py", *given])


if __name__ == "__main__":
    main()

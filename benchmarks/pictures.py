"""Pictures of the miniature, drawn, judged and kept: what the benchmarks that draw many of them share.

Whatever is measured becomes a row with a `way` and a `prompt` (its number). It stands in rows.jsonl of the benchmark's
folder as soon as it is there, under an identity that hashes all that the numbers depend on but the prompt: a stopped
run goes on where it was, and a changed model is measured anew.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import textwrap
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont

from urae import mini
from urae.adapters.base import base_of
from urae.execution import plan_memory
from urae.generation import Way, save_png
from urae.generation.compare import drawn
from urae.generation.methods import options_of
from urae.io import Progress
from urae.metrics import evaluate
from urae.metrics.detail import detail
from urae.metrics.repetition import repetition
from urae.mini.recogniser import Recogniser
from urae.statistics import compare, mean, wilson
from urae.statistics.intervals import MIN_PROMPTS, adjusted

CACHE = Path(__file__).parents[1] / ".cache" / "benchmarks"
FIRST_PROMPT = 2_000_000
"""Seed of the first prompt's scene, as in the quickstart: beyond everything that is trained on."""
SHARES = ("object", "style", "background")
MEASURES: Mapping[str, Callable] = {"repetition": repetition, "detail": detail}
DISTANCE = "mini_patch_fid"
NUM_TRUTHS, FIRST_TRUTH = 400, 3_000_000
"""True scenes whose patches are the reference, and the seed of the first: other scenes than the prompts'."""

Row = dict[str, Any]
Rows = list[Row]
Key = tuple[str, int]
"""Identity and number of a prompt."""


# Rows


def recorded(wanted: Mapping[Key, Callable[[], Row]], folder: Path) -> Rows:
    """The row of every key, in their order: from the folder where it is there, else made now and kept."""
    path = folder / "rows.jsonl"
    # By key, since two runs beside each other may both have made a row.
    rows = {key: row for row in kept(path) if (key := (row["identity"], row["prompt"])) in wanted}
    with Progress(folder.name, total=len(wanted), done=len(rows)) as progress, path.open("a") as file:
        for key, make in wanted.items():
            if key not in rows:
                rows[key] = {"identity": key[0], **make()}
                file.write(json.dumps(rows[key]) + "\n")
                file.flush()
                progress.advance(rows[key]["way"])
    return [rows[key] for key in wanted]


def kept(path: Path) -> Rows:
    """The rows of the file, without the beginning of one at whose writing the run was stopped."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = path.read_text() if path.exists() else ""
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        path.write_text(whole)
    return [json.loads(line) for line in whole.splitlines()]


def fingerprint(*known: Any) -> str:
    """A short hash of what a number depends on."""
    return hashlib.sha256(json.dumps(known, default=str).encode()).hexdigest()[:12]


# Drawing

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
Draw = Callable[[int], mini.Scene]
"""From a seed to a scene."""


def drawings(
    pipe: Any,
    ways: Iterable[Way],
    *,
    prompts: int,
    side: int,
    judge: Recogniser,
    folder: Path,
    draw: Draw = mini.familiar_scene,
    more: Callable[[Way], Sequence[Any]] = lambda way: (),
) -> dict[Key, Callable[[], Row]]:
    """What `recorded` is asked for, prompt by prompt, so that a run that is stopped has all ways of each prompt.

    `more` is what the numbers depend on beside the model, the label, the steps, the method's options and the adapter.
    """
    names = [(way, identity(pipe, way, side, *more(way))) for way in ways]
    make = partial(row_of, pipe, side=side, judge=judge, draw=draw, compiled=set())
    return {
        (name, i): partial(make, way, number=i, folder=folder / name)
        for i in range(prompts)
        for way, name in names
    }


def identity(pipe: Any, way: Way, side: int, *more: Any) -> str:
    """A hash of all that the numbers of a way's pictures depend on but the prompt."""
    base, adapter = base_of(pipe.transformer), way.adapter.hash if way.adapter else ""
    versions = [torch.__version__, base.config, base.weights]
    return fingerprint(*versions, side, way.label, way.steps, options_of(way.method), adapter, *more)


def row_of(
    pipe: Any,
    way: Way,
    *,
    number: int,
    side: int,
    judge: Recogniser,
    folder: Path,
    draw: Draw,
    compiled: set[str],
) -> Row:
    """The numbers of one picture, which goes into the folder. A way that compiles draws its first twice: compiling is
    not to be counted."""
    scene, size = draw(FIRST_PROMPT + number), (side, side)
    make = partial(drawn, pipe, scene.caption(), way, size=size, seed=number, measures=MEASURES)
    if way.compile is True and way.label not in compiled:
        make(memory=plan_memory(pipe, size))
        compiled.add(way.label)
    started = time.process_time()
    outcome = make(memory=plan_memory(pipe, size))
    cpu_seconds = time.process_time() - started
    save_png(outcome.image, folder / f"{number:04d}.png")
    return {
        "way": way.label,
        "prompt": number,
        **verdict(judge, outcome.image, scene),
        **outcome.numbers,
        "seconds": round(outcome.seconds, 2),
        "cpu_seconds": round(cpu_seconds, 2),
        "native_seconds": round(outcome.native_seconds, 2),
        "calls": outcome.calls,
        "tokens": outcome.tokens,
    }


def verdict(judge: Recogniser, image: Image.Image, scene: mini.Scene) -> dict[str, float]:
    """1 or 0 for the object, style and background of the scene, and the relation where it has one."""
    seen = judge.look([image], [len(scene.things)])[0]
    return {name: float(agrees) for name, agrees in seen.agrees(scene).items()}


# Summing up


def by_way(rows: Rows, column: str) -> dict[str, dict[str, float]]:
    """way -> prompt -> value, of the rows that have the column."""
    ways: dict[str, dict[str, float]] = {}
    for row in sorted(rows, key=lambda row: row["prompt"]):
        if column in row:
            ways.setdefault(row["way"], {})[str(row["prompt"])] = row[column]
    return ways


def estimate(values: Mapping[str, float]) -> dict[str, float]:
    """The mean with its bootstrap interval; without one where there are too few prompts for any."""
    return (
        asdict(mean(values)) if len(values) >= MIN_PROMPTS else {"value": sum(values.values()) / len(values)}
    )


def share(values: Mapping[str, float]) -> dict[str, float]:
    """The share of ones with Wilson's interval, which has a width at 0 and 1 too."""
    return asdict(wilson(round(sum(values.values())), len(values)))


def differences(rows: Rows, column: str, pairs: Mapping[str, tuple[str, str]]) -> dict[str, Row]:
    """name -> one way less another on the same prompts, Holm's correction over the pairs; {} for too few prompts."""
    ways = by_way(rows, column)
    if any(len(values) < MIN_PROMPTS for values in ways.values()):
        return {}
    results = adjusted({name: compare(ways[way], ways[other]) for name, (way, other) in pairs.items()})
    return {name: {**asdict(result), "real": result.real} for name, result in results.items()}


def patch_distances(rows: Rows, side: int, folder: Path) -> dict[str, dict[str, float]]:
    """way -> distance of its pictures' patches to those of true scenes, with its interval; {} for too few prompts.

    The pictures are in `folder`, the truth and the features beside it, where other benchmarks find them too.
    """
    pictures: dict[str, list[Path]] = {}
    for row in sorted(rows, key=lambda row: row["prompt"]):
        pictures.setdefault(row["way"], []).append(picture_of(row, folder))
    if any(len(files) < MIN_PROMPTS for files in pictures.values()):
        return {}
    against, cache = {"truth": truths(side, folder.parent)}, folder.parent / "features"
    table = evaluate(pictures, "names", metrics=[DISTANCE], against=against, cache=cache)
    cells = {way: next(iter(row.values())) for way, row in table.cells.items()}
    return {way: {"value": cell.value, "low": cell.low, "high": cell.high} for way, cell in cells.items()}


def truths(side: int, cache: Path) -> Path:
    """The folder of the true scenes at this size, drawn where they are missing."""
    folder = cache / f"truth-{side}"
    for i in range(NUM_TRUTHS):
        file = folder / f"{i:04d}.png"
        if not file.exists():
            save_png(mini.render(mini.familiar_scene(FIRST_TRUTH + i), side), file)
    return folder


def picture_of(row: Row, folder: Path) -> Path:
    """Where the picture of a row is."""
    return folder / row["identity"] / f"{row['prompt']:04d}.png"


# In words and pictures


def shown(value: Mapping[str, float]) -> str:
    is_sure = value.get("low") == value.get("high")  # the same for every prompt, or too few prompts to tell
    interval = "" if is_sure else f" [{value['low']:.3g}, {value['high']:.3g}]"
    return f"{value['value']:.3g}{interval}"


def table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], *, first: str = "way") -> list[str]:
    """Lines of Markdown; a row that lacks a column has an empty cell."""
    lines = [f"| {first} | " + " | ".join(columns) + " |", "|---|" + "---:|" * len(columns)]
    for row in rows:
        cells = (shown(row[name]) if name in row else "" for name in columns)
        lines.append(f"| {row[first]} | " + " | ".join(cells) + " |")
    return lines


def difference_table(title: str, found: Mapping[str, Row]) -> list[str]:
    """Lines of Markdown below a line that says what is compared."""
    lines = ["", title, "", "| way | difference | p, corrected | real |", "|---|---:|---:|---|"]
    for name, effect in found.items():
        real = "yes" if effect["real"] else "no"
        lines.append(f"| {name} | {shown(effect['difference'])} | {effect['p_adjusted']:.2g} | {real} |")
    return lines


LABEL, GAP, LINE = 150, 6, 15
INK, PAPER = "#1d2430", "#ffffff"


def sheet(rows: Mapping[str, Sequence[Image.Image]], columns: Sequence[str], *, cell: int) -> Image.Image:
    """A row of pictures for each label, `cell` px wide each, below the `columns`' words."""
    heads = [textwrap.fill(words, cell // 7) for words in columns]
    top = LINE * max(head.count("\n") + 1 for head in heads) + GAP
    size = (LABEL + len(columns) * (cell + GAP), top + len(rows) * (cell + GAP))
    whole = Image.new("RGB", size, PAPER)
    draw, font = ImageDraw.Draw(whole), ImageFont.load_default(12)
    for x, head in enumerate(heads):
        draw.multiline_text((LABEL + x * (cell + GAP), 2), head, fill=INK, font=font, spacing=1)
    for y, (label, images) in enumerate(rows.items()):
        place = top + y * (cell + GAP)
        draw.multiline_text((GAP, place + 2), textwrap.fill(label, LABEL // 8), fill=INK, font=font)
        for x, image in enumerate(images):
            small = image.convert("RGB").resize((cell, cell), Image.Resampling.LANCZOS)
            whole.paste(small, (LABEL + x * (cell + GAP), place))
    return whole


MAX_BYTES = 400_000


def save_sheet(image: Image.Image, path: Path) -> None:
    """A PNG of at most 400 KB, with as many colours as fit."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for colours in (256, 128, 64, 32, 16):
        buffer = io.BytesIO()
        # An octree keeps what is rare, such as an orange object; median cuts give nearly all colours to textures.
        few = image.quantize(colours, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
        few.save(buffer, "PNG", optimize=True)
        if buffer.tell() <= MAX_BYTES:
            break
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(buffer.getvalue())
    os.replace(temporary, path)
    print(path)

"""`urae compare`: prompts and seeds, each drawn several ways, beside pictures of other models; a sheet, and a table of
what each costs."""

from __future__ import annotations

import datetime
import json
import os
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from urae import generation
from urae.cli.generate import PromptFile, Prompts, asked_for
from urae.cli.named import named
from urae.cli.options import Fields, given_options
from urae.cli.printed import console, say
from urae.generation.asking import DrawingRequest, ModelRequest
from urae.io import Progress, check_can_write, picture_size, plain, read_picture, write_text
from urae.metrics.matching import pictures_by_id, pictures_by_request
from urae.pages import SheetPart, SheetPicture, is_reduced, sheet_page, sheet_picture, tile_of

if TYPE_CHECKING:
    from PIL.Image import Image

    from urae.adapters import Adapter, Stack
    from urae.generation import DrawingPlan, Way, WayResult

__all__ = ["compare"]

STOCK, NOTHING = "stock", "none"
"""The direct method without a policy: the pipeline as it comes, only larger. And no way at all."""
DEFAULT_WAYS = [STOCK, "direct", "tiled", "sdedit", "imax", "hiflow"]
SHEET, PAGE, TABLE = "grid.png", "compare.html", "compare.json"
SHARED = ("size", "seed", "policy", "steps", "offload", "decode")
"""What all ways have in common."""
WITHOUT_WAYS = {"prompts", "prompt_file", "seed", "method", "candidate", "crop", "out", "as_json"}
"""What has an effect where nothing is drawn."""


def compare(
    ctx: typer.Context,
    model: Annotated[dict[str, Any], Fields(ModelRequest)],
    drawing: Annotated[dict[str, Any], Fields(DrawingRequest, only=SHARED, size="256x256")],
    prompts: Prompts = None,
    prompt_file: PromptFile = None,
    method: Annotated[
        list[str],
        typer.Option(
            help="A method, or method:option=value,option=value; stock is direct without a policy; none draws nothing "
            "and shows the candidates alone."
        ),
    ] = DEFAULT_WAYS,
    candidate: Annotated[
        list[str],
        typer.Option(
            help="name=FOLDER of pictures to show beside them, of any model: those of urae by prompt and seed, others "
            "by the ids of --prompts; repeat for several."
        ),
    ] = [],  # noqa: B006
    crop: Annotated[
        list[str],
        typer.Option(
            help="X,Y: where a part is shown pixel by pixel, as shares of width and height; repeat for several.",
            show_default="the middle, 0.5,0.5",
        ),
    ] = [],  # noqa: B006
    native_steps: Annotated[
        int | None, typer.Option(help="Denoising steps of the native pass.", show_default="each method's")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the pictures, the sheet and the table.")] = Path(
        "compared"
    ),
) -> dict[str, Any]:
    """Draw prompts several ways: a sheet of pictures, and what each way costs; an earlier one is never replaced.

    With an adapter, each method is drawn without it and with it.

    Example: urae compare "a flat tiger on a wood background" --size 256x256 --method direct --method imax:weight=0.5

    Beside other models: urae compare --prompts prompts.txt --seed 0-1 --candidate sana=out/sana --crop 0.4,0.3
    """
    check_can_write(out, folder=True)
    texts = asked_for(prompts, prompt_file)
    listed = list(texts.values()) if isinstance(texts, dict) else texts
    asked, opening = DrawingRequest(prompt=listed, **drawing), ModelRequest(**model)
    methods = _methods(method, native_steps, ctx)
    found = _found(named(candidate, "candidate", value="FOLDER"), texts, asked.seeds)
    places = [_place(text) for text in crop] or [(0.5, 0.5)]
    widths = [picture_size(path)[0] for files in found.values() for path in files]
    size: Any = asked.size
    if crop and not any(map(is_reduced, [*widths, *([size[0]] if methods else [])])):
        raise ValueError("crop has no effect: the pictures are so small that they are shown whole")
    sheet = _Sheet(out=out, prompts=listed, seeds=asked.seeds, crops=places)
    described: dict[str, Any] = {}
    if methods:
        with opening.opened() as (pipe, adapter):
            ways = _ways(methods, asked, adapter)
            sheet.check_new([*found, *(way.label for way in ways)], drawn=[way.label for way in ways])
            plan = generation.plan_drawing(pipe, asked)
            say(f"memory: {plan.memory}")
            described = _draw(plan, ways, sheet)
    else:
        sheet.check_new(list(found), drawn=[])
    for name, files in found.items():
        for number, path in enumerate(files):
            sheet.show_candidate(number, name, path)
    described["pictures"] = sheet.rows
    _write(sheet, described, asked)
    return described


def _methods(texts: Sequence[str], native_steps: int | None, ctx: typer.Context) -> list[tuple[str, Any]]:
    """The methods with their labels; none for the word alone."""
    if NOTHING in texts:
        if len(texts) > 1 or not ctx.params["candidate"]:
            raise ValueError("the method none shows candidates alone: give it alone, and some --candidate")
        if idle := sorted(given_options(ctx) - WITHOUT_WAYS):
            raise ValueError(
                f"{idle[0]} has no effect with the method none, which draws nothing: leave it out"
            )
        return []
    methods = [(text.replace(":", " "), _method(text, native_steps)) for text in texts]
    if native_steps is not None and not any(isinstance(way, generation.TwoPass) for _, way in methods):
        raise ValueError("native_steps has no effect: none of the methods has a native pass")
    return methods


def _place(text: str) -> tuple[float, float]:
    try:
        x, y = map(float, text.split(","))
        if 0 <= x <= 1 and 0 <= y <= 1:
            return x, y
    except ValueError:
        pass
    raise ValueError(f"crop is {text!r}: expected two shares from 0 to 1, such as 0.4,0.25")


def _found(
    folders: Mapping[str, Path], texts: list[str] | dict[str, str], seeds: Sequence[int]
) -> dict[str, list[Path]]:
    """Each candidate's picture of every prompt with every seed; ValueError for one that is missing."""
    return {name: _pictures(name, folder, texts, seeds) for name, folder in folders.items()}


def _pictures(name: str, folder: Path, texts: list[str] | dict[str, str], seeds: Sequence[int]) -> list[Path]:
    if isinstance(texts, dict):
        by_id = pictures_by_id(name, folder)
        wanted = [(id, f"{id}-seed{seed}") for id in texts for seed in seeds]
        usual = {id: by_id.get(id) if len(seeds) == 1 else None for id in texts}
        there = [by_id.get(stem) or usual[id] for id, stem in wanted]
        names = [f"{folder}/{id if len(seeds) == 1 else stem}.png" for id, stem in wanted]
    else:
        by_request = pictures_by_request(name, folder)
        there = [by_request.get((text, str(seed))) for text in texts for seed in seeds]
        names = [f"a picture of {text!r} with seed {seed}" for text in texts for seed in seeds]
    if None in there:
        lacking = names[there.index(None)]
        raise ValueError(f"{name} lacks {there.count(None)} of {len(there)} pictures: expected {lacking}")
    return [path for path in there if path]


@dataclass(frozen=True, kw_only=True)
class _Sheet:
    """What is shown, as it comes: a part for each prompt and seed."""

    out: Path
    prompts: list[str]
    seeds: list[int]
    crops: list[tuple[float, float]]
    tiles: dict[int, list[SheetPicture]] = field(default_factory=dict)
    """By the part's place, all seeds of the first prompt first."""
    rows: list[dict[str, Any]] = field(default_factory=list)
    """What is known of each picture, JSON types."""

    @property
    def parts(self) -> list[tuple[str, int]]:
        return list(product(self.prompts, self.seeds))

    def file(self, number: int, label: str) -> str:
        """Of a picture that is drawn; its prompt and seed are in its name where there are several."""
        prompt, seed = divmod(number, len(self.seeds))
        several = [f"{prompt + 1}"] * (len(self.prompts) > 1) + [f"seed{self.seeds[seed]}"] * (
            len(self.seeds) > 1
        )
        return "-".join([*several, re.sub(r"[^\w.=-]+", "-", label).strip("-")]) + ".png"

    def check_new(self, labels: Sequence[str], *, drawn: Sequence[str]) -> None:
        """Refuse a folder that holds a comparison, whole or begun, and labels that are not told apart."""
        if len(set(labels)) < len(labels):
            raise ValueError(f"the ways are labelled {', '.join(labels)}: expected another label for each")
        names = [
            SHEET,
            PAGE,
            TABLE,
            *(self.file(n, label) for n in range(len(self.parts)) for label in drawn),
        ]
        if there := next((self.out / name for name in names if (self.out / name).exists()), None):
            raise ValueError(
                f"{there} exists already, and a comparison never replaces another: give another folder with --out"
            )

    def show(self, number: int, result: WayResult) -> None:
        """Save a picture as soon as it is there, so that an interrupted run keeps what it has made."""
        file = self.file(number, result.label)
        generation.save_png(result.image, self.out / file)
        tiles = generation.tiles_of(result, file=file, crops=self.crops)
        there = self.tiles.setdefault(number, [])
        if len(tiles) > 1 and not (there and there[0].label == tiles[0].label):
            there.insert(0, tiles[0])
        there.append(tiles[-1])
        self.rows.append({**self._about(number, result.label, file), **_cost(result), **result.numbers})
        for picture in (result.image, result.native):
            if picture:
                picture.close()  # many of them would not fit into memory

    def show_candidate(self, number: int, label: str, path: Path) -> None:
        """A picture that was there."""
        picture = read_picture(path)
        file = os.path.relpath(path, self.out)
        note = f"{picture.width} x {picture.height} px"
        tile = tile_of(picture, label=label, note=note, file=file, crops=self.crops)
        self.tiles.setdefault(number, []).append(tile)
        self.rows.append({**self._about(number, label, file), **_measured(picture)})

    def _about(self, number: int, label: str, file: str) -> dict[str, Any]:
        prompt, seed = self.parts[number]
        return {"prompt": prompt, "seed": seed, "label": label, "file": file}


def _measures() -> dict[str, Any]:
    from urae.metrics.detail import detail
    from urae.metrics.repetition import repetition

    return {"repetition": repetition, "detail": detail}


def _measured(picture: Image) -> dict[str, float]:
    return {name: measure(picture) for name, measure in _measures().items()}


def _draw(plan: DrawingPlan, ways: Sequence[Way], sheet: _Sheet) -> dict[str, Any]:
    """Draw every part in every way, and say what all numbers depend on."""
    places = iter([number for number in range(len(sheet.parts)) for _ in ways])
    total = len(sheet.parts) * sum(way.num_steps for way in ways)
    with Progress("drawing", total=total) as progress:
        results = generation.compare_ways(
            plan.pipe,
            sheet.prompts,
            ways,
            size=plan.size,
            seed=sheet.seeds,
            measures=_measures(),
            memory=plan.memory,
            on_step=progress.advance,
            on_result=lambda result: sheet.show(next(places), result),
        )
    info, on_cuda = results[0].image.info, plan.memory.device.startswith("cuda")
    return {
        "size": list(plan.size),
        "model": info["model"],
        "base_weights": info.get("base_weights", "as_loaded"),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": _gpu_name() if on_cuda else f"{platform.machine()}, {os.cpu_count()} cores",
        "peak": "allocated on the device" if on_cuda else "of the whole process",
    }


def _gpu_name() -> str:
    import torch  # here, since the list of options needs nothing of it

    return torch.cuda.get_device_name()


def _method(text: str, native_steps: int | None) -> Any:
    """The method of "name" or "name:option=value,option=value"."""
    name, _, options = text.partition(":")
    if name == STOCK and options:
        raise ValueError(f"{STOCK} has no options: leave {options!r} out")
    method = generation.method_from_texts(
        "direct" if name == STOCK else name, options.split(",") if options else []
    )
    has_native = isinstance(method, generation.TwoPass)
    return replace(method, native_steps=native_steps) if native_steps and has_native else method


def _ways(
    methods: Sequence[tuple[str, Any]], asked: DrawingRequest, adapter: Adapter | Stack | None
) -> list[Way]:
    """Each method without the adapter, and with it where it has an effect and a policy to run under."""
    policy: Any = asked.policy
    ways = []
    for label, method in methods:
        if label == STOCK:
            ways.append(generation.Way(label=label, method=method, policy="none", steps=asked.steps))
        elif method.steps == 0:
            ways.append(generation.Way(label=label, method=method))
        else:
            plain_way = generation.Way(label=label, method=method, policy=policy, steps=asked.steps)
            ways.append(plain_way)
            if adapter:
                several = "adapters" if hasattr(adapter, "parts") else "adapter"
                ways.append(replace(plain_way, label=f"{label} + {several}", adapter=adapter))
    return ways


def _cost(result: WayResult) -> dict[str, Any]:
    return {
        "seconds": round(result.seconds, 3),
        "native_seconds": round(result.native_seconds, 3),
        "calls": result.calls,
        "tokens": result.tokens,
        "peak_bytes": result.peak_bytes,
        "made": dict(result.image.info),
    }


def _write(sheet: _Sheet, described: Mapping[str, Any], asked: DrawingRequest) -> None:
    several = len(sheet.seeds) > 1
    parts = [
        SheetPart(heading=prompt, note=f"seed {seed}" if several else "", tiles=sheet.tiles[number])
        for number, (prompt, seed) in enumerate(sheet.parts)
    ]
    drawn: Any = asked.size
    note = generation.about(drawn) if "size" in described else ""
    title = sheet.prompts[0] if len(sheet.prompts) == 1 else f"{len(sheet.prompts)} prompts compared"
    generation.save_png(sheet_picture(parts, note=note), sheet.out / SHEET)
    write_text(sheet.out / PAGE, sheet_page(parts, title=title, note=note))
    write_text(sheet.out / TABLE, json.dumps(described, indent=2, ensure_ascii=False) + "\n")
    console.print(_table(sheet.rows))
    say(f"wrote {sheet.out / PAGE}, {sheet.out / SHEET} and {sheet.out / TABLE}")


def _table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """A line for each way and candidate: means over its pictures, and the largest memory."""
    table = Table()
    table.add_column("method", overflow="fold")
    for name in ("seconds", "native pass", "calls", "peak memory", *_measures()):
        table.add_column(name, justify="right")
    for label in dict.fromkeys(row["label"] for row in rows):
        own = [row for row in rows if row["label"] == label]

        def mean(name: str, form: str, own: list[Any] = own) -> str:
            value = sum(row.get(name) or 0 for row in own) / len(own)
            return format(value, form) if value or name in _measures() else ""

        peak = max((row.get("peak_bytes") or 0 for row in own), default=0)
        table.add_row(
            plain(label),
            mean("seconds", ".1f"),
            mean("native_seconds", ".1f"),
            mean("calls", ".0f"),
            f"{peak / 1e9:.2f} GB" if peak else "",
            *(mean(name, ".3f") for name in _measures()),
        )
    return table

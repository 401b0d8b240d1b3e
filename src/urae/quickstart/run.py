"""The main job, small enough for a coffee break: the miniature from 128 px to 256 and 512 px.

The adapter that ships with the miniature draws first pictures. Then the whole way: two data sets are rendered (clean
ones at 256 px, as a teacher gives; damaged ones at 512 px, as the web gives), a LoRA is trained on the first and the
smallest singular components on the second, and the same prompts are drawn with the same seeds every way, measured and
shown in a report. Every part is the public function that FLUX.1 uses too.
"""

from __future__ import annotations

import os
import platform
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image

from urae import mini, recipes
from urae.adapters import Adapter
from urae.generation import generate, save_png
from urae.io import Progress, tracked, write_png
from urae.metrics import METRICS, Options, relative_detail
from urae.metrics.pictures import LazyPicture, MeasuredPicture
from urae.metrics.repetition import repetition
from urae.mini.recogniser import recogniser
from urae.quickstart.overview import overview
from urae.quickstart.report import MeasuredWay, next_command, write_report
from urae.training import train

__all__ = ["Quickstart", "quickstart"]

FIRST_PROMPT = 2_000_000
"""Seed of the first prompt's scene: beyond everything that the miniature or its adapters are trained on."""


@dataclass(frozen=True, kw_only=True)
class Quickstart:
    """What a quickstart made: first pictures, the report, the adapters, and the numbers in the report."""

    first: Path
    """A sheet that shows the shipped adapter before anything is trained."""
    report: Path
    adapters: dict[int, Path]
    """By size."""
    columns: list[MeasuredWay]
    seconds: float
    next_command: str
    """With which to draw something of one's own."""


def quickstart(
    out: str | Path = "urae-quickstart",
    *,
    num_prompts: int = 6,
    num_images: tuple[int, int] = (240, 64),
    train_steps: tuple[int, int] = (450, 150),
    sample_steps: int = 20,
    say: Callable[[str], None] = print,
) -> Quickstart:
    """Run the whole method on the miniature and write `out`/report.html; six to nine minutes on two cores.

    `num_images` and `train_steps` are for 256 and 512 px. `say` is given a line for each part as it begins.
    """
    if num_prompts < 2:
        raise ValueError(f"num_prompts is {num_prompts}: expected 2 or more, since patch FID compares sets")
    start, out = time.time(), Path(out)
    pipe = mini.pipeline()
    pipe.set_progress_bar_config(disable=True)
    say("1/6  first pictures at 256 px, by the adapter that ships with the miniature")
    shipped = {size: Adapter.load(f"mini:{size // 128}x", base=pipe) for size in (256, 512)}
    first = _first_pictures(pipe, shipped[256], out=out, steps=sample_steps)
    say(f"     after {time.time() - start:.0f} s: open {first}")
    say("2/6  rendering two small data sets: clean at 256 px, as the web has it at 512 px")
    with Progress("rendering", total=sum(num_images)) as progress:
        draw, tick = mini.familiar_scene, progress.advance
        clean, web = out / "data" / "clean-256", out / "data" / "web-512"
        mini.write_dataset(clean, num_images[0], 256, seed=500_000, draw=draw, on_picture=tick)
        mini.write_dataset(web, num_images[1], 512, seed=600_000, damage=WEB, draw=draw, on_picture=tick)
    say("3/6  training a LoRA at 256 px")
    two = recipes.mini_2x(data=str(clean), out=str(out / "mini-2x"), steps=train_steps[0])
    adapters = {256: train(pipe, two)}
    say("4/6  training the smallest singular components at 512 px, from the 256 px adapter on")
    four = recipes.mini_4x(
        data=str(web),
        out=str(out / "mini-4x"),
        steps=train_steps[1],
        start=str(out / "mini-2x" / "adapter.safetensors"),
    )
    adapters[512] = train(pipe, four)
    say(f"5/6  drawing {num_prompts} prompts nine ways")
    columns = _draw(pipe, shipped, adapters, out=out, num=num_prompts, steps=sample_steps)
    say("6/6  measuring, and writing the report")
    files = {size: out / f"mini-{size // 128}x" / "adapter.safetensors" for size in adapters}
    _overview(columns, _prompts(num_prompts)).save(out / "overview.png")
    report = write_report(out, columns=columns, prompts=_prompts(num_prompts), machine=_machine(start))
    return Quickstart(
        first=first,
        report=report,
        adapters=files,
        columns=columns,
        seconds=time.time() - start,
        next_command=next_command(out),
    )


WEB = mini.Damage(wrong_caption=0.1, blur=0.1, jpeg=0.3, watermark=0.0)
"""A filtered web collection: what is left of the damage after the filters of `urae data`."""


def _first_pictures(pipe: Any, adapter: Adapter, *, out: Path, steps: int) -> Path:
    """Three prompts at the native size, and at 256 px as the model comes and with the shipped adapter."""
    ways: dict[str, dict[str, Any]] = {
        "native, 128 px": {"size": 128, "policy": "none"},
        "direct, 256 px": {"size": 256, "policy": "none"},
        "mini:2x, 256 px": {"size": 256, "adapter": adapter},
    }
    rows = [
        [
            cast(Image.Image, generate(pipe, prompt, seed=i, steps=steps, **options))
            for options in ways.values()
        ]
        for i, prompt in enumerate(_prompts(3))
    ]
    out.mkdir(parents=True, exist_ok=True)
    return write_png(overview(list(ways), rows, _prompts(3)), out / "first.png", texts={})


def _draw(
    pipe: Any,
    shipped: dict[int, Adapter],
    trained: dict[int, Adapter],
    *,
    out: Path,
    num: int,
    steps: int,
) -> list[MeasuredWay]:
    """Native, then direct, policy only and with either adapter at each size, and the truth to compare with."""
    columns = [_truth(size, num, out) for size in (128, 256, 512)]
    ways: list[tuple[str, int, dict[str, Any]]] = [("native", 128, {"policy": "none"})]
    for size in shipped:
        ways += [
            ("direct", size, {"policy": "none"}),
            ("policy", size, {}),
            ("adapted", size, {"adapter": trained[size]}),
            ("shipped", size, {"adapter": shipped[size]}),
        ]
    for name, size, options in tracked(ways, "drawing"):
        begin = time.time()
        images = [
            cast(Image.Image, generate(pipe, prompt, size=size, seed=i, steps=steps, **options))
            for i, prompt in enumerate(_prompts(num))
        ]
        seconds = (time.time() - begin) / num
        columns.append(_column(name, size, images, seconds=seconds, truth=columns, out=out))
    return columns


def _overview(columns: list[MeasuredWay], prompts: list[str]) -> Image.Image:
    """The first three prompts at the native size and every way at 512 px."""
    shown = [c for c in columns if c.name == "native" or (c.size == 512 and c.name != "truth")]
    rows = list(zip(*(column.images[:3] for column in shown), strict=True))
    return overview([f"{column.name}, {column.size} px" for column in shown], rows, prompts[:3])


def _truth(size: int, num: int, out: Path) -> MeasuredWay:
    images = [mini.render(mini.familiar_scene(FIRST_PROMPT + i), size) for i in range(num)]
    return _column("truth", size, images, seconds=0.0, truth=[], out=out)


def _column(
    name: str,
    size: int,
    images: list[Image.Image],
    *,
    seconds: float,
    truth: Sequence[MeasuredWay],
    out: Path,
) -> MeasuredWay:
    files = [out / "pictures" / f"{size}-{name}-{i}.png" for i in range(len(images))]
    for image, file in zip(images, files, strict=True):
        save_png(image, file)
    reference = next((c.images for c in truth if c.name == "truth" and c.size == size), images)
    numbers = measure(images, reference)
    return MeasuredWay(name=name, size=size, images=images, files=files, numbers=numbers, seconds=seconds)


def measure(images: Sequence[Image.Image], truth: Sequence[Image.Image]) -> dict[str, float]:
    """Shares recognised (object, background), median repetition, and distance of patches and detail relative to
    `truth`; pictures of the quickstart's prompts, in order."""
    scenes = [mini.familiar_scene(FIRST_PROMPT + i) for i in range(len(images))]
    seen = recogniser().look(images, [len(scene.things) for scene in scenes])
    verdicts = [look.agrees(scene) for look, scene in zip(seen, scenes, strict=True)]
    return {
        "object": float(np.mean([verdict["object"] for verdict in verdicts])),
        "background": float(np.mean([verdict["background"] for verdict in verdicts])),
        "repetition": float(np.median([repetition(image) for image in images])),
        "patches": patch_distance(images, truth),
        "detail": relative_detail(images, truth),
    }


def patch_distance(images: Sequence[Image.Image], truth: Sequence[Image.Image]) -> float:
    """`mini_patch_fid`: Frechet distance of native crops to those of the truth; 0 for the truth itself."""
    metric = METRICS["mini_patch_fid"]
    reader = metric.open(None, Options(device="cpu", num_crops=16))
    assert metric.distance
    drawn, true = (
        reader.read(
            [
                MeasuredPicture(picture=LazyPicture(image), name=str(i), prompt="")
                for i, image in enumerate(some)
            ]
        )
        for some in (images, truth)
    )
    return metric.distance(drawn, true).value


def _prompts(num: int) -> list[str]:
    return [mini.familiar_scene(FIRST_PROMPT + i).caption() for i in range(num)]


def _machine(start: float) -> str:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return (
        f"Made in {(time.time() - start) / 60:.1f} minutes with at most {peak:.1f} GiB of memory, on "
        f"{torch.get_num_threads()} of {os.cpu_count()} cores ({platform.machine()}, "
        f"{torch.backends.cpu.get_cpu_capability()}), torch {torch.__version__}."
    )

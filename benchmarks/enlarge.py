"""Scenes of the miniature's world enlarged from 128 px, beside bicubic interpolation, against what they truly are.

    python benchmarks/enlarge.py --scenes 6 --sizes 256,512

PSNR says how near the pixels are to the truth, patch FID how near crops of 64 px are to true ones in the
features of the miniature's recogniser. A picture may be likely and not true: then the first is worse and the second
better. The first two scenes are kept as a sheet.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from report import RESULTS, conditions, write

from urae import mini
from urae.adapters import Adapter
from urae.enlarging import EnlargeRequest, plan_enlarging
from urae.generation import save_png
from urae.io import Progress
from urae.metrics import evaluate
from urae.statistics import mean

NATIVE = 128
FIRST_SCENE = 2_000_000
"""Beyond everything that is trained on."""
FIRST_TRUTH, NUM_TRUTHS = 3_000_000, 200
"""Other scenes, whose patches are the reference."""


@dataclass(frozen=True)
class Kind:
    """One way of enlarging."""

    label: str
    settings: Mapping[str, Any]
    prompted: bool = True
    adapted: bool = False


def main() -> None:
    options = _options()
    torch.set_num_threads(options.threads)
    pipe = mini.pipeline()
    pipe.set_progress_bar_config(disable=True)
    adapter = Adapter.load(options.adapter, base=pipe) if options.adapter else None
    kinds = list(_kinds(adapted=adapter is not None))
    sizes = {}
    for size in options.sizes:
        drawn = _drawn(pipe, kinds, size, options.scenes, adapter)
        sizes[size] = _measured(drawn, size)
        save_png(_sheet(drawn), options.out.with_name(f"{options.out.stem}-{size}.png"))
    write(options.out, conditions("enlarge", scenes=options.scenes, native=NATIVE, ways=sizes))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scenes", type=int, default=6)
    parser.add_argument(
        "--sizes",
        type=lambda text: [int(one) for one in text.split(",")],
        default=[256, 512],
        help="of 256,512",
    )
    parser.add_argument("--adapter", type=Path, help="for the ways with an adapter, such as a quickstart's")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULTS / "enlarge.json")
    return parser.parse_args()


def _kinds(*, adapted: bool) -> Iterator[Kind]:
    for level in ("little", "some", "much"):
        yield Kind(level, {"change": level})
    yield Kind("some, without a prompt", {"change": "some"}, prompted=False)
    yield Kind("some, in tiles", {"change": "some", "tiles": True})
    yield Kind("all but the layout", {"change": 1.0})
    if adapted:
        yield Kind("some, with an adapter", {"change": "some"}, adapted=True)


def _drawn(
    pipe: Any, kinds: Sequence[Kind], size: int, num: int, adapter: Adapter | None
) -> dict[str, list[Image.Image]]:
    """Pictures by way, the truth and what interpolation gives included."""
    drawn: dict[str, list[Image.Image]] = {
        label: [] for label in ("truth", "bicubic", *(one.label for one in kinds))
    }
    with Progress(f"{size} px", total=num * len(kinds)) as progress:
        for place in range(num):
            scene = mini.familiar_scene(FIRST_SCENE + place)
            small = mini.render(scene, NATIVE)
            drawn["truth"].append(mini.render(scene, size))
            drawn["bicubic"].append(small.resize((size, size), Image.Resampling.BICUBIC))
            for kind in kinds:
                asked = EnlargeRequest(
                    picture=small,
                    size=(size, size),
                    prompt=scene.caption() if kind.prompted else "",
                    **kind.settings,
                )
                plan = plan_enlarging(pipe, asked, adapter=adapter if kind.adapted else None)
                drawn[kind.label].append(plan.run()[0])
                progress.advance()
    return drawn


def _measured(drawn: Mapping[str, Sequence[Image.Image]], size: int) -> list[dict[str, Any]]:
    truths = [mini.render(mini.familiar_scene(FIRST_TRUTH + place), size) for place in range(NUM_TRUTHS)]
    table = evaluate(drawn, "names", metrics=["mini_patch_fid"], against={"truth": truths})
    rows = []
    for label, images in drawn.items():
        pairs = enumerate(zip(images, drawn["truth"], strict=True))
        scores = {str(place): psnr(one, truth) for place, (one, truth) in pairs} if label != "truth" else {}
        cell = next(iter(table.cells[label].values()))
        rows.append(
            {"way": label, "psnr": _said(mean(scores)) if scores else None, "patch_distance": _said(cell)}
        )
        print(rows[-1], flush=True)
    return rows


def _said(interval: Any) -> dict[str, float]:
    return {key: round(getattr(interval, key), 3) for key in ("value", "low", "high")}


def psnr(image: Image.Image, truth: Image.Image) -> float:
    """Peak signal to noise ratio, dB."""
    error = np.asarray(image, dtype=np.float64) - np.asarray(truth, dtype=np.float64)
    return float(10 * np.log10(255**2 / max(float((error**2).mean()), 1e-12)))


def _sheet(drawn: Mapping[str, Sequence[Image.Image]]) -> Image.Image:
    """The first two scenes, a row each, in the order of the ways."""
    side = drawn["truth"][0].width
    rows = min(2, len(drawn["truth"]))
    sheet = Image.new("RGB", (side * len(drawn), side * rows))
    for column, images in enumerate(drawn.values()):
        for row in range(rows):
            sheet.paste(images[row], (side * column, side * row))
    return sheet


if __name__ == "__main__":
    main()

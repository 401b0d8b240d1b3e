"""The quickstart's report: one page with the pictures, the numbers, the loss curves and the files."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from PIL import Image

from urae.io import write_text
from urae.pages import html_page
from urae.statistics import wilson
from urae.training import read_metrics

__all__ = ["MeasuredWay", "next_command", "write_report"]

WINDOW = 15
"""Steps whose mean loss is told: a single one says little."""

MEANINGS = {
    "truth": ("truth", "rendered, not generated"),
    "native": ("native", "the size it was trained for"),
    "direct": ("direct", "stock pipeline, only larger"),
    "policy": ("policy", "positions, attention and shift set for the size"),
    "adapted": ("your adapter", "the policy, and a few minutes of training here"),
    "shipped": ("shipped adapter", "the policy, and longer training beforehand"),
}

STORIES = {
    256: "What 2K is to FLUX.1. Asked directly, the model meets positions and a timestep shift it was never "
    "trained with, and draws copies or loses the subject. The policy interpolates positions, scales attention and "
    "keeps the shift. Your adapter is a LoRA, trained under that policy on clean images of this size.",
    512: "What 4K is to FLUX.1: only real images exist here, some blurred, over-compressed or wrongly captioned. "
    "Your adapter starts from the 256 px one and trains the smallest singular components of the weights.",
}
NUMBERS = ["recognised", "background", "repetition", "patch FID", "detail", "seconds a picture"]


@dataclass(frozen=True, kw_only=True)
class MeasuredWay:
    """One way of drawing the prompts: its pictures, and what is measured on them."""

    name: str
    size: int
    images: list[Image.Image]
    files: list[Path]
    numbers: dict[str, float]
    seconds: float
    """Per picture."""


def write_report(out: Path, *, columns: Sequence[MeasuredWay], prompts: Sequence[str], machine: str) -> Path:
    """Write `out`/report.html, which shows the pictures beside it; returns its path."""
    page = html_page(
        "urae.quickstart",
        "report.html.j2",
        native=128,
        sizes=[_block(size, columns, prompts, out) for size in (256, 512)],
        numbers=NUMBERS,
        num_prompts=len(prompts),
        runs=[_run(out / f"mini-{factor}x", factor) for factor in (2, 4)],
        files=_files(out),
        next_command=next_command(out),
        machine=machine,
    )
    path = out / "report.html"
    write_text(path, page)
    return path


def next_command(out: Path) -> str:
    """The command that draws something of your own with the adapter of a quickstart in `out`."""
    return f"""urae generate "a flat ghost on a wood background" \\
    --model mini --size 512x512 --adapter {shlex.quote(str(out / "mini-4x" / "adapter.safetensors"))} --out pictures"""


def _block(size: int, columns: Sequence[MeasuredWay], prompts: Sequence[str], out: Path) -> dict[str, Any]:
    native = next(c for c in columns if c.name == "native")
    here = [c for c in columns if c.size == size]
    shown = [native, *(c for c in here if c.name != "truth"), next(c for c in here if c.name == "truth")]
    return {
        "size": size,
        "factor": size // 128,
        "story": STORIES[size],
        "rows": [_row(column) for column in shown],
        "columns": [
            {"title": f"{MEANINGS[c.name][0]}, {c.size} px", "meaning": MEANINGS[c.name][1]} for c in shown
        ],
        "pictures": [
            {"prompt": prompt, "seed": i, "files": [c.files[i].relative_to(out).as_posix() for c in shown]}
            for i, prompt in enumerate(prompts)
        ],
    }


def _row(column: MeasuredWay) -> dict[str, Any]:
    num, numbers = len(column.images), column.numbers
    made = column.name != "truth"
    return {
        "name": f"{MEANINGS[column.name][0]}, {column.size} px",
        "values": [
            _share(numbers["object"], num),
            _share(numbers["background"], num),
            (f"{numbers['repetition']:.2f}", ""),
            (f"{numbers['patches']:.1f}", ""),
            (f"{numbers['detail']:.2f}", ""),
            (f"{column.seconds:.1f}" if made else "", ""),
        ],
    }


def _share(share: float, num: int) -> tuple[str, str]:
    """The count, and the 95% interval of the share: "5 of 6", "[44%, 97%]"."""
    interval = wilson(round(share * num), num)
    return f"{round(share * num)} of {num}", f"[{interval.low:.0%}, {interval.high:.0%}]"


def _run(folder: Path, factor: int) -> dict[str, Any]:
    rows = [row for row in read_metrics(folder / "metrics.jsonl") if "loss" in row]
    seconds = sum(row["seconds"] for row in rows)
    kind = {2: "LoRA, clean images", 4: "smallest singular components, web images"}[factor]
    first, last = (mean(row["loss"] for row in part) for part in (rows[:WINDOW], rows[-WINDOW:]))
    return {
        "title": f"{128 * factor} px",
        "summary": f"{kind}; {len(rows)} steps in {seconds:.0f} s ({seconds / len(rows):.2f} s a step); "
        f"loss, mean of {WINDOW} steps: {first:.3f} at first, {last:.3f} at last",
    }


def _files(out: Path) -> list[dict[str, str]]:
    return [
        {"path": f"{out}/mini-2x/adapter.safetensors", "what": "the 256 px adapter: a rank-16 LoRA"},
        {
            "path": f"{out}/mini-4x/adapter.safetensors",
            "what": "the 512 px adapter: the 256 px one and the trained smallest components, in one exact LoRA",
        },
        {
            "path": "mini:2x, mini:4x",
            "what": "the shipped adapters, by these names wherever a file is expected",
        },
        {
            "path": f"{out}/mini-4x/recipe.yaml",
            "what": "what was trained; given to urae train, it repeats the run",
        },
        {"path": f"{out}/pictures/", "what": "every picture as PNG, with its prompt, seed and policy inside"},
    ]

"""The files of a comparison: a picture of each way, a page, a sheet and a table."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from platform import machine
from typing import TYPE_CHECKING, Any

from urae import generation
from urae.io import read_picture, read_text, write_text
from urae.pages import SheetPart, SheetPicture, sheet_page, sheet_picture, tile_of

if TYPE_CHECKING:
    from PIL.Image import Image

    from urae.generation import DrawingPlan, WayResult

__all__ = ["PAGE", "SHEET", "TABLE", "ComparisonSheet", "conditions", "measures"]

SHEET, PAGE, TABLE = "grid.png", "compare.html", "compare.json"
UNFINISHED = "unfinished.json"
"""What was asked, as long as the table is not there: the same command may replace what it has made so far."""


@dataclass(frozen=True, kw_only=True)
class ComparisonSheet:
    """What is shown, as it comes: a part for each prompt and seed."""

    out: Path
    prompts: list[str]
    seeds: list[int]
    crops: list[tuple[float, float]]
    begun: str
    """What was asked, as text."""
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

    def check_new(self, ways: Sequence[str], candidates: Iterable[str]) -> None:
        """Refuse labels that are not told apart, and a folder that holds a comparison. This one, unfinished, is drawn
        anew: costs are those of one run."""
        labels = [*ways, *candidates]
        if len(set(labels)) < len(labels):
            raise ValueError(f"the ways are labelled {', '.join(labels)}: expected another label for each")
        if (self.out / UNFINISHED).is_file() and read_text(self.out / UNFINISHED) == self.begun:
            return
        drawn = (self.file(number, label) for number in range(len(self.parts)) for label in ways)
        names = [SHEET, PAGE, TABLE, *drawn]
        if there := next((self.out / name for name in names if (self.out / name).exists()), None):
            raise ValueError(
                f"{there} exists already, and a comparison never replaces another: give another folder with --out"
            )

    def show(self, number: int, result: WayResult) -> None:
        """Save a picture as soon as it is there, so that an interrupted run keeps what it has made."""
        file = self.file(number, result.label)
        write_text(self.out / UNFINISHED, self.begun)
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

    def save(self, described: Mapping[str, Any], *, note: str) -> list[Path]:
        """The page, the sheet and the table; `described` is what all numbers depend on."""
        several = len(self.seeds) > 1
        parts = [
            SheetPart(heading=prompt, note=f"seed {seed}" if several else "", tiles=self.tiles[number])
            for number, (prompt, seed) in enumerate(self.parts)
        ]
        title = self.prompts[0] if len(self.prompts) == 1 else f"{len(self.prompts)} prompts compared"
        generation.save_png(sheet_picture(parts, note=note), self.out / SHEET)
        write_text(self.out / PAGE, sheet_page(parts, title=title, note=note))
        whole = {**described, "pictures": self.rows}
        write_text(self.out / TABLE, json.dumps(whole, indent=2, ensure_ascii=False) + "\n")
        (self.out / UNFINISHED).unlink(missing_ok=True)
        return [self.out / name for name in (PAGE, SHEET, TABLE)]


def conditions(plan: DrawingPlan, result: WayResult) -> dict[str, Any]:
    """What all numbers of a comparison depend on."""
    import torch  # here, since the list of options needs nothing of it

    info, on_cuda = result.image.info, plan.memory.device.startswith("cuda")
    return {
        "size": list(plan.size),
        "model": info["model"],
        "base_weights": info.get("base_weights", "as_loaded"),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": torch.cuda.get_device_name() if on_cuda else f"{machine()}, {os.cpu_count()} cores",
        "peak": "allocated on the device" if on_cuda else "of the whole process",
    }


def measures() -> dict[str, Any]:
    """What is measured of each picture, by name."""
    from urae.metrics.detail import detail
    from urae.metrics.repetition import repetition

    return {"repetition": repetition, "detail": detail}


def _measured(picture: Image) -> dict[str, float]:
    return {name: measure(picture) for name, measure in measures().items()}


def _cost(result: WayResult) -> dict[str, Any]:
    return {
        "seconds": round(result.seconds, 3),
        "native_seconds": round(result.native_seconds, 3),
        "calls": result.calls,
        "tokens": result.tokens,
        "peak_bytes": result.peak_bytes,
        "made": dict(result.image.info),
    }

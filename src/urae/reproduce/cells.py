"""The pictures of a plan: a folder for each row and prompt set, and the drawing of what is missing in it.

A folder's name depends on all that its pictures are made from, so a plan that was changed never takes old ones.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from urae import generation
from urae.adapters import Adapter
from urae.baselines import plan_stock, stock_of
from urae.collecting.run import IMAGES
from urae.execution import MemoryPlan
from urae.generation import TwoPass, save_png
from urae.generation.methods import Method, method_named
from urae.io import Progress, file_hash, is_picture_name
from urae.metrics.matching import by_stem, picture_files
from urae.reproduce.plan import Made, TablePlan, TableRow
from urae.reproduce.prompts import SCENES, draw_truth, prompts_of
from urae.reproduce.training import adapter_file, identity_of
from urae.resolution import ResolutionPolicy

__all__ = ["CellPictures", "cell_of", "draw_cell", "method_of"]

TRUTH = "mini:truth"
OpenModel = Callable[[str, str], Any]
Save = Callable[[Image.Image], None]


@dataclass(frozen=True, kw_only=True)
class CellPictures:
    """The pictures of one row for one prompt set."""

    row: TableRow
    prompts: str
    folder: Path
    texts: dict[str, str]
    """Prompts by id; a picture is named after its id."""

    @property
    def title(self) -> str:
        return f"{self.row.name}, {self.prompts}"

    @property
    def files(self) -> dict[str, Path]:
        """Pictures that are there, by id."""
        there = picture_files(self.title, self.folder) if self.folder.is_dir() else ()
        found = by_stem(self.title, there)
        return {key: found[key] for key in self.texts if key in found}

    @property
    def missing(self) -> list[str]:
        """Ids without a picture."""
        files = self.files
        return [key for key in self.texts if key not in files]


def cell_of(plan: TablePlan, row: TableRow, prompts: str, out: Path) -> CellPictures:
    """Where the pictures are, or will be. Prompts and adapter file must be there."""
    if row.folder and plan.folders[row.folder] != TRUTH:
        folder = _given(Path(plan.folders[row.folder]), prompts)
    elif row.folder:
        scenes = plan.prompts[prompts].removeprefix(SCENES)
        folder = out / "pictures" / f"truth-{scenes}-{plan.size}" / prompts
    else:
        folder = out / "pictures" / f"{_slug(row.name)}-{identity_of(_settings(plan, row, out))}" / prompts
    return CellPictures(row=row, prompts=prompts, folder=folder, texts=prompts_of(plan, prompts))


def _given(folder: Path, prompts: str) -> Path:
    """The folder of the prompt set; where there is none, the folder itself or a collection's images, if pictures of one
    set lie there."""
    choices = (folder / prompts, folder / IMAGES, folder)
    with_pictures = (one for one in choices if one.is_dir() and any(map(is_picture_name, one.iterdir())))
    return choices[0] if choices[0].is_dir() else next(with_pictures, choices[0])


def draw_cell(plan: TablePlan, cell: CellPictures, out: Path, open_model: OpenModel) -> None:
    """Make the pictures that are missing; each is on the disk as soon as it is there."""
    row, missing = cell.row, cell.missing
    if not missing:
        return
    if row.folder:
        draw_truth(plan, cell.prompts, cell.folder)
        return
    texts, left = [cell.texts[key] for key in missing], iter(missing)

    def save(image: Image.Image) -> None:
        save_png(image, cell.folder / f"{next(left)}.png")

    pipe = open_model(plan.models[row.model], "auto")
    pipe.set_progress_bar_config(disable=True)
    draw = _draw_stock if stock_of(plan.models[row.model]) else _draw
    draw(plan, cell, pipe, texts, out, save)


def method_of(plan: TablePlan, row: TableRow) -> Method:
    """The row's method with its options; in two passes, both have the plan's number of steps."""
    options = {key: _file(plan, value) for key, value in row.options.items()}
    method = method_named(row.method, options)
    if plan.steps and isinstance(method, TwoPass):
        return method_named(row.method, {**options, "native_steps": plan.steps})
    return method


def _draw(plan: TablePlan, cell: CellPictures, pipe: Any, texts: list[str], out: Path, save: Save) -> None:
    row, method = cell.row, method_of(plan, cell.row)
    adapter = Adapter.load(adapter_file(plan, row.adapter, out), base=pipe) if row.adapter else None
    # A method without steps at this size, such as ESRGAN, takes none.
    steps = (plan.steps or method.steps) if method.steps else 0
    native_steps = method.native_steps if isinstance(method, TwoPass) else 0
    with Progress(cell.title, total=len(texts) * (steps + native_steps)) as progress:
        generation.generate(
            pipe,
            texts,
            size=plan.size,
            method=method,
            adapter=adapter,
            policy=ResolutionPolicy.reference() if row.policy == "reference" else row.policy,
            seed=plan.seed,
            steps=steps or "auto",
            natives=out / "natives" if native_steps else None,
            on_step=progress.advance,
            on_image=save,
        )


def _draw_stock(
    plan: TablePlan, cell: CellPictures, pipe: Any, texts: list[str], out: Path, save: Save
) -> None:
    on_gpu = torch.cuda.is_available()
    memory = MemoryPlan(device="cuda" if on_gpu else "cpu", offload="none" if on_gpu else "unchanged")
    drawing = plan_stock(pipe, texts, size=plan.size, seeds=[plan.seed], steps=plan.steps, memory=memory)
    with Progress(cell.title, total=drawing.num_steps) as progress:
        drawing.run(on_step=progress.advance, on_image=save)


def _settings(plan: TablePlan, row: TableRow, out: Path) -> dict[str, Any]:
    """All that decides the pixels."""
    return {
        "model": plan.models[row.model],
        "size": plan.size,
        "seed": plan.seed,
        "steps": plan.steps,
        "method": row.method,
        "options": {key: _file(plan, value) for key, value in row.options.items()},
        "policy": row.policy,
        "adapter": _adapter_identity(plan, row, out),
    }


def _adapter_identity(plan: TablePlan, row: TableRow, out: Path) -> str:
    if not row.adapter:
        return ""
    file = adapter_file(plan, row.adapter, out)
    if isinstance(plan.adapters[row.adapter], Made):
        return file.parent.name
    return file_hash(file)


def _file(plan: TablePlan, value: Any) -> Any:
    section, _, name = value.partition(".") if isinstance(value, str) else ("", "", "")
    return plan.files[name] if section == "files" and name in plan.files else value


def _slug(name: str) -> str:
    return re.sub(r"\W+", "-", name.lower()).strip("-")

"""What a plan needs and this machine does not have, found before anything is computed."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

from urae.baselines import local_folder
from urae.metrics import METRICS
from urae.reproduce.cells import TRUTH, cell_of
from urae.reproduce.plan import TableColumn, TablePlan, TableRow
from urae.reproduce.prompts import SCENES

__all__ = ["adapter_needs", "column_needs", "is_model_there", "needs", "row_needs", "set_needs"]

EXTRAS = {
    "hps_published": ("ftfy", "hps"),
    "maniqa": ("pyiqa", "iqa"),
    "qualiclip": ("pyiqa", "iqa"),
    "score": ("openai", "judge"),
    "pair": ("openai", "judge"),
}
"""Metric, or kind of column -> package and the extra that brings it."""


def needs(plan: TablePlan, out: Path) -> list[str]:
    """What is missing: each the key to give, and what it is in parentheses; empty if the plan can run in `out`."""
    found = [
        *(need for name in plan.sets for need in set_needs(plan, name)),
        *(need for row in plan.rows for need in row_needs(plan, row)),
        *(need for column in plan.columns for need in column_needs(plan, column)),
    ]
    found = list(dict.fromkeys(found))
    return found or list(_pictures(plan, out))


def is_model_there(model: str) -> bool:
    """A folder or file here, the miniature, or a repository in the hub's cache."""
    there = model and (Path(model).exists() or local_folder(model) is not None)
    return model == "mini" or bool(there)


def set_needs(plan: TablePlan, name: str) -> Iterator[str]:
    """Of a prompt set."""
    source = plan.prompts[name]
    if not source.startswith(SCENES) and not (source and Path(source).exists()):
        asks = any(column.kind == "dpg" for column in plan.columns if column.prompts == name)
        lines = 'a .jsonl file of {"id": ..., "prompt": ...}, HPDv2\'s folder of .json lists, or COCO\'s captions .json'
        form = "DPG-Bench's csv file" if asks else lines
        yield f"prompts.{name} ({form})"


def row_needs(plan: TablePlan, row: TableRow) -> Iterator[str]:
    """Of a row's pictures, prompts apart."""
    if row.folder:
        folder = plan.folders[row.folder]
        if folder != TRUTH and not (folder and Path(folder).is_dir()):
            sets = " and ".join(f"{name}/" for name in plan.sets)
            yield f"folders.{row.folder} (a folder with {sets}, pictures of {row.name} named by prompt id)"
        return
    yield from _model(plan, row.model)
    for value in row.options.values():
        name = str(value).removeprefix("files.")
        if name in plan.files and not (plan.files[name] and Path(plan.files[name]).exists()):
            yield f"files.{name} (for {row.name})"
    if row.adapter:
        yield from adapter_needs(plan, row.adapter)


def _model(plan: TablePlan, name: str) -> Iterator[str]:
    model = plan.models[name]
    if not is_model_there(model):
        hint = f"now {model}, which is not in the hub's cache: hf download {model}" if model else "a folder"
        yield f"models.{name} ({hint})"


def adapter_needs(plan: TablePlan, name: str) -> Iterator[str]:
    """Of an adapter, and of those that it starts from."""
    made = plan.adapters[name]
    if isinstance(made, str):
        if not Path(made).is_file():
            yield f"adapters.{name} (now {made}, which is not there)"
        return
    yield from _model(plan, made.model)
    for value in made.changes.values():
        section, _, other = str(value).partition(".")
        if section == "adapters" and other in plan.adapters:
            yield from adapter_needs(plan, other)
        source = plan.data.get(other, SCENES) if section == "data" else SCENES
        if not source.startswith(SCENES) and not (source and Path(source).exists()):
            yield f"data.{other} (training images of {name}, unless adapters.{name} is a file)"


def column_needs(plan: TablePlan, column: TableColumn) -> Iterator[str]:
    """Of what a column is measured by."""
    if column.kind == "metric" and (wanted := METRICS[column.of].weights):
        served = [name for name in plan.weights if METRICS[name].weights == wanted]
        if not any(Path(plan.weights[name]).exists() for name in served):
            yield f"weights.{column.of} ({wanted})"
    package, extra = EXTRAS.get(column.of if column.kind == "metric" else column.kind, ("", ""))
    if package and importlib.util.find_spec(package) is None:
        yield f"the package {package} (pip install 'urae[{extra}]')"
    if column.kind == "dpg" and not plan.dpg.get("model"):
        yield "dpg.model (the model that answers: a folder, or with dpg.server its name there)"
    if column.kind in ("score", "pair") and not plan.judge.get("model"):
        yield "judge.model (the judge's name at its server, judge.base_url)"
    words = plan.judge.get("instructions", "")
    if column.kind in ("score", "pair") and words and not Path(words).is_file():
        yield f"judge.instructions (now {words}, which is not there)"


def _pictures(plan: TablePlan, out: Path) -> Iterator[str]:
    """Of folders that are there, pictures that are not."""
    for row in plan.rows:
        if row.folder and plan.folders[row.folder] != TRUTH:
            for name in plan.sets:
                if missing := cell_of(plan, row, name, out).missing:
                    yield f"folders.{row.folder}: {len(missing)} pictures in {name}/, such as {missing[0]}.png"

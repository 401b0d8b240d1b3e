"""Checkpoints that are complete or absent.

    checkpoints/step-000200/
        adapter.safetensors, optimizer.safetensors, average.safetensors    tensors by name state.json
        the step, and everything that is no tensor

A checkpoint is written beside its place under a name that is never read, forced to disk, and renamed: a
process killed at any moment leaves either the whole of it or a leftover that the next one removes. There is
no random state in it, because all chance is a function of (seed, step, sample).
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from urae.errors import BadFile

__all__ = ["Checkpoint", "latest_checkpoint", "load_checkpoint", "remove_leftovers", "save_checkpoint"]

UNFINISHED = ".unfinished-"
"""Prefix of a checkpoint that is being written."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A run as it was after a step."""

    step: int
    """Optimizer steps done."""
    tensors: dict[str, dict[str, Tensor]]
    """Groups of tensors, one file each."""
    state: dict[str, Any]
    """The rest, in types that JSON has."""


def save_checkpoint(checkpoint: Checkpoint, folder: Path, *, keep: int) -> Path:
    """Write a checkpoint into `folder`, unless the step's is there, and keep only the `keep` latest. Returns
    its path."""
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / f"step-{checkpoint.step:06d}"
    if final.is_dir():
        return final
    unfinished = folder / f"{UNFINISHED}{final.name}"
    unfinished.mkdir()
    for name, tensors in checkpoint.tensors.items():
        _save_tensors(tensors, unfinished / f"{name}.safetensors")
    _save_text(json.dumps({"step": checkpoint.step, **checkpoint.state}), unfinished / "state.json")
    _force_to_disk(unfinished)
    os.replace(unfinished, final)
    _force_to_disk(folder)
    for old in _finished(folder)[:-keep]:
        _remove(old)
    return final


def latest_checkpoint(folder: Path) -> Path | None:
    """The complete checkpoint with the most steps."""
    finished = _finished(folder)
    return finished[-1] if finished else None


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint; a damaged one is a `BadFile`."""
    try:
        state = json.loads((path / "state.json").read_text(encoding="utf-8"))
        tensors = {file.stem: load_file(file) for file in sorted(path.glob("*.safetensors"))}
    except (OSError, ValueError, SafetensorError) as error:
        raise BadFile(
            f"checkpoint {path} is damaged ({error}): delete it to go on from the one before"
        ) from error
    return Checkpoint(step=state.pop("step"), tensors=tensors, state=state)


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed process did not finish writing or removing."""
    for leftover in folder.glob(f"{UNFINISHED}*"):
        shutil.rmtree(leftover)


def _finished(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*"), key=lambda path: int(path.name.removeprefix("step-")))


def _remove(path: Path) -> None:
    # Renamed first: a checkpoint that is half removed must not be found under its name.
    doomed = path.with_name(f"{UNFINISHED}{path.name}")
    os.replace(path, doomed)
    shutil.rmtree(doomed)


def _save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, path)
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _save_text(text: str, path: Path) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _force_to_disk(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

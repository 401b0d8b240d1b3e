"""Checkpoints that are complete or absent.

    checkpoints/step-000200/
        adapter.safetensors, optimizer.safetensors, average.safetensors    tensors by name
        state.json      the step, and everything that is no tensor
        digests.json    the format's number, and SHA-256 of each file above

A checkpoint is whole or not there, however the process ends, and a bit that has changed since is found. What else lies
beside the checkpoints is somebody else's. There is no random state in them, because all chance is a function of (seed,
step, sample).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from urae.errors import BadFile
from urae.execution import from_main_, on_main
from urae.io import (
    field_of,
    file_hash,
    json_line,
    parse_json_object,
    read_json_object,
    read_text,
    read_weights,
    remove_folder,
    write_text,
    write_weights,
    writing_folder,
)

__all__ = ["Checkpoint", "latest_checkpoint", "load_checkpoint", "of_main", "save_checkpoint"]

STATE, DIGESTS = "state.json", "digests.json"
FORMAT = 1
"""Without digests, a checkpoint is from before there were formats."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A run as it was after a step."""

    step: int
    """Optimizer steps done."""
    tensors: dict[str, dict[str, Tensor]]
    """Groups of tensors, one file each."""
    state: dict[str, Any]
    """The rest, in types that JSON has, and infinite numbers."""

    def empty(self, device: str) -> Checkpoint:
        """The same with tensors whose values are yet to come."""
        groups = {
            group: {name: torch.empty_like(tensor, device=device) for name, tensor in tensors.items()}
            for group, tensors in self.tensors.items()
        }
        return replace(self, tensors=groups)


def save_checkpoint(checkpoint: Checkpoint, folder: Path, *, keep: int) -> Path:
    """Write a checkpoint into `folder`, unless the step's is there, and keep only the `keep` latest. Returns
    its path. Raises `CannotWrite`."""
    final = folder / f"step-{checkpoint.step:06d}"
    if final.is_dir():
        return final
    with writing_folder(final, sync=True) as unfinished:
        for name, tensors in checkpoint.tensors.items():
            write_weights(unfinished / f"{name}.safetensors", tensors, {})
        write_text(unfinished / STATE, json.dumps({"step": checkpoint.step, **checkpoint.state}))
        files = {file.name: file_hash(file) for file in sorted(unfinished.iterdir())}
        write_text(unfinished / DIGESTS, json_line({"format": FORMAT, "files": files}))
    for old in _finished(folder)[:-keep]:
        remove_folder(old)
    return final


def latest_checkpoint(folder: Path) -> Path | None:
    """The complete checkpoint with the most steps."""
    finished = _finished(folder)
    return finished[-1] if finished else None


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint; a damaged one is a `BadFile`."""
    try:
        files = _files(path)
        state = parse_json_object(read_text(path / STATE), name=STATE, finite=False)
        step = field_of(state, "step", int, name=STATE)
        tensors = {file.stem: read_weights(file).tensors for file in files if file.suffix == ".safetensors"}
    except BadFile as error:
        raise BadFile(
            f"checkpoint {path} is damaged ({error}): delete it to go on from the one before"
        ) from error
    del state["step"]
    return Checkpoint(step=step, tensors=tensors, state=state)


def of_main(find: Callable[[], Checkpoint | None]) -> Checkpoint | None:
    """The checkpoint that the main process finds, in every process. What others see of the folder, which may be another
    machine's or an older listing, does not matter."""
    found: list[Checkpoint] = []

    def outline() -> Checkpoint | None:
        found.extend(filter(None, [find()]))
        return found[0].empty("meta") if found else None

    outlined = on_main(outline)
    if outlined is None:
        return None
    checkpoint = found[0] if found else outlined.empty("cpu")
    from_main_(tensor for tensors in checkpoint.tensors.values() for tensor in tensors.values())
    return checkpoint


def _files(path: Path) -> list[Path]:
    """The checkpoint's own, whose contents are those that were written, as far as they have digests."""
    if not (path / DIGESTS).exists():
        return sorted(path.iterdir())
    written = read_json_object(path / DIGESTS)
    number = field_of(written, "format", int, name=DIGESTS)
    if number != FORMAT:
        raise BadFile(f"its format is {number}, and this version reads {FORMAT}")
    digests = field_of(written, "files", dict, name=DIGESTS)
    for name, digest in digests.items():
        if not (path / name).is_file() or file_hash(path / name) != digest:
            raise BadFile(f"{name} has changed since it was written")
    return [path / name for name in digests]


def _finished(folder: Path) -> list[Path]:
    steps = {path: re.fullmatch(r"step-(\d{6,})", path.name) for path in folder.glob("step-*")}
    named = {path: int(found[1]) for path, found in steps.items() if found and path.is_dir()}
    return sorted(named, key=named.__getitem__)

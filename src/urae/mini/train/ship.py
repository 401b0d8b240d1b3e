"""Put the trained parts together and write what the package loads."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from urae.mini import recogniser
from urae.mini.pipeline import WEIGHTS
from urae.mini.train.distil import load_student


def ship(out: Path, *, weights: Path = WEIGHTS, dtype: torch.dtype = torch.bfloat16) -> None:
    """Write the distilled model as a diffusers folder, the recogniser beside it, and the logs of all stages.

    bf16 halves the size; its rounding (2^-9 relative) is far below the model's own error."""
    pipe = load_student(out)
    shutil.rmtree(weights, ignore_errors=True)
    pipe.to(dtype).save_pretrained(weights)
    save_file(load_file(out / "recogniser.safetensors"), recogniser.WEIGHTS)
    log = {path.stem: _lines(path) for path in sorted(out.glob("*.jsonl"))}
    (weights / "training.json").write_text(json.dumps(log, indent=1))


def _lines(path: Path) -> list[dict[str, float]]:
    """The log by step; where a stopped stage repeated steps, what it did last."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return list({line["step"]: line for line in lines}.values())

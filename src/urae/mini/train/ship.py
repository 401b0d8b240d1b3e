"""Put the trained parts together and write what the package loads, and take that apart again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from urae.mini import recogniser
from urae.mini.shipped import WEIGHTS, pipeline
from urae.mini.train.base import trained_weights
from urae.mini.train.distil import load_student
from urae.mini.train.progress import write_atomically


def ship(out: Path, *, weights: Path = WEIGHTS, dtype: torch.dtype = torch.bfloat16) -> None:
    """Write the distilled model as a diffusers folder, the recogniser beside it, and the logs of all stages.

    bf16 halves the size; its rounding (2^-9 relative) is far below the model's own error."""
    pipe = load_student(out)
    shutil.rmtree(weights, ignore_errors=True)
    pipe.to(dtype).save_pretrained(weights)
    save_file(load_file(out / "recogniser.safetensors"), recogniser.WEIGHTS)
    log = {path.stem: _lines(path) for path in sorted(out.glob("*.jsonl"))}
    (weights / "training.json").write_text(json.dumps(log, indent=1))


def unpack(out: Path) -> None:
    """Write the shipped weights as the checkpoints `vae`, `base` and `recogniser`, so that training can go on from
    them: the student at guidance 1 is a base, and is made one again by training that sees no other guidance."""
    pipe = pipeline()
    parts = {"vae": pipe.vae.state_dict(), "base": trained_weights(pipe)}
    for stage in parts:
        if (out / f"{stage}.safetensors").exists():
            raise FileExistsError(f"{out / stage}.safetensors exists already: choose another --out")
    for stage, weights in parts.items():
        tensors = {f"{kind}.{k}": v.detach().clone() for k, v in weights.items() for kind in ("raw", "ema")}
        write_atomically(tensors | {"step": torch.tensor(0)}, out / f"{stage}.safetensors")
    shutil.copyfile(recogniser.WEIGHTS, out / "recogniser.safetensors")
    logs = json.loads((WEIGHTS / "training.json").read_text())
    del logs["distil"]  # is done again
    for stage, lines in logs.items():
        (out / f"{stage}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def _lines(path: Path) -> list[dict[str, float]]:
    """The log by step; where a stopped stage repeated steps, what it did last."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return list({line["step"]: line for line in lines}.values())

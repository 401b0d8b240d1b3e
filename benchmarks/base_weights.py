"""What a rounded base costs the adapter that is trained on it: `python benchmarks/base_weights.py`.

The miniature is trained by the recipe mini_2x on its weights as they are and in each format of `base_weights`, on the
same images, noise and noise levels. Held-out records give the validation loss before the first step and after the
last, both on the base of the training; then the adapter is put on the base as it is, where it will be used. Losses do
not depend on the machine's load; CPU seconds do so little. Writes benchmarks/results/base_weights.json.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from report import RESULTS, conditions, write

from urae import mini, recipes, train
from urae.adapters.targets import linear_layers
from urae.data.scenes import render_scenes
from urae.execution import quantised
from urae.execution.rounding import QuantisedLinear, quantised_bytes
from urae.training import Recipe, override, read_metrics

FORMATS = ("as_loaded", "nf4", "fp8", "fp8_dynamic", "int8")
"""The others are compared with the first."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--records", type=int, default=160)
    parser.add_argument("--held-out", type=int, default=8)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, default=RESULTS / "base_weights.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    settings = {"steps": options.steps, "records": options.records, "held_out": options.held_out}
    with tempfile.TemporaryDirectory() as folder:
        rows = measurements(Path(folder), options)
    write(options.out, {**conditions("base_weights", **settings), "rows": rows})


def measurements(folder: Path, options: argparse.Namespace) -> list[dict]:
    pipe = mini.pipeline()
    data = render_scenes(f"mini:clean:{options.records}", folder, size=256)
    common = recipes.mini_2x(
        data=str(data), num_validation=options.held_out, sample_every=0, checkpoint_every=0, loggers=[]
    )
    rows = []
    for kind in FORMATS:
        row = {
            "base_weights": kind,
            **weights(pipe.transformer, kind),
            **trained(pipe, common, kind, folder, options),
        }
        first = rows[0] if rows else row
        row["loss_ratio"] = round(row["loss_after"] / first["loss_after"], 5)
        row["loss_on_plain_base_ratio"] = round(row["loss_on_plain_base"] / first["loss_on_plain_base"], 5)
        print(row, flush=True)
        rows.append(row)
    return rows


def weights(transformer: Any, kind: str) -> dict:
    """Bytes of the transformer, and how far its rounded matrices are from its own."""
    if kind == "as_loaded":
        return {
            "bytes": sum(p.nbytes for p in (*transformer.parameters(), *transformer.buffers())),
            "error": 0.0,
        }
    dense = {name: layer.weight.detach() for name, layer in linear_layers(transformer).items()}
    with quantised(transformer, kind):
        rounded = {
            n: m.weight for n, m in linear_layers(transformer).items() if isinstance(m, QuantisedLinear)
        }
    error = sum((dense[name] - weight).square().sum() for name, weight in rounded.items())
    whole = sum(dense[name].square().sum() for name in rounded)
    return {"bytes": quantised_bytes(transformer, kind), "error": round(float((error / whole) ** 0.5), 5)}


def trained(pipe: Any, common: Recipe, kind: str, folder: Path, options: argparse.Namespace) -> dict:
    out, started = folder / kind, time.process_time()
    settings = {
        "steps": options.steps,
        "validate_every": options.steps,
        "base_weights": kind,
        "out": str(out),
    }
    losses = validation_losses(pipe, override(common, settings))
    seconds = time.process_time() - started
    # A step more on the base as it is; its first validation comes before that step.
    settings = {
        "steps": 1,
        "validate_every": 1,
        "start": str(out / "adapter.safetensors"),
        "out": f"{out}-plain",
    }
    plain = validation_losses(pipe, override(common, settings))
    return {
        "loss_before": losses[0],
        "loss_after": losses[-1],
        "loss_on_plain_base": plain[0],
        "cpu_seconds": round(seconds, 1),
    }


def validation_losses(pipe: Any, recipe: Recipe) -> list[float]:
    train(pipe, recipe)
    rows = read_metrics(Path(recipe.out) / "metrics.jsonl")
    return [round(row["validation_loss"], 6) for row in rows if "validation_loss" in row]


if __name__ == "__main__":
    main()

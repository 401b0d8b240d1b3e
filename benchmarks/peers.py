"""Training on the miniature, beside diffusers' own script: `python benchmarks/peers.py path/to/the/script`.

The script is train_dreambooth_lora_flux.py of diffusers' examples. It is not part of this project, and is run as it is,
by its path. Both train an attention LoRA of the same rank on the same pictures, size and batch, in fp32 on the CPU,
eagerly, and ours once more in compiled blocks. Each runs twice, for a few steps and for more, and the CPU seconds
between the two are those of the steps. What happens once, loading, caching and compiling, is in both and stands in a
column of its own. CPU seconds of a process and its children stay meaningful on a busy machine, and the ratio is within
one run. Writes benchmarks/results/peers.json.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from report import RESULTS, conditions, write

from urae import mini

TARGETS = ("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0")
RANK, SIZE, BATCH = 16, 256, 4
PICTURES = 8
TEXT = 32
"""Tokens of a prompt; the miniature's tokenizer has no more."""
PROMPT = "a flat tiger on a wood background"

Command = Callable[[int, Path], list[str]]
"""From the number of steps and a folder for results to a command line."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("script", type=Path, help="diffusers' train_dreambooth_lora_flux.py")
    parser.add_argument(
        "--steps", type=int, default=30, help="more steps of the longer run than of the shorter"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULTS / "peers.json")
    options = parser.parse_args()
    if not options.script.is_file():
        parser.error(f"{options.script} is no file: expected a copy of train_dreambooth_lora_flux.py")
    with tempfile.TemporaryDirectory() as folder:
        rows = measured(options, Path(folder))
    for row in rows:
        print(row)
    about = conditions(
        "peers", size=SIZE, batch=BATCH, rank=RANK, threads=options.threads, steps=options.steps
    )
    write(options.out, {**about, "rows": rows})


def measured(options: argparse.Namespace, folder: Path) -> list[dict[str, object]]:
    pictures = folder / "pictures"
    mini.write_dataset(pictures, PICTURES, SIZE, draw=mini.familiar_scene)
    ways: dict[str, Command] = {
        "diffusers' script": lambda steps, out: theirs(options.script, pictures, steps, out),
        "urae": lambda steps, out: ours(pictures, steps, out),
        "urae, compiled": lambda steps, out: ours(pictures, steps, out, "compile=true"),
    }
    rows: list[dict[str, object]] = []
    for name, command in ways.items():
        few, many = (
            cpu_seconds(command(steps, folder / f"{len(rows)}-{steps}"), options.threads)
            for steps in (2, 2 + options.steps)
        )
        step = (many - few) / options.steps
        rows.append({"way": name, "cpu_seconds_a_step": step, "cpu_seconds_once": few - 2 * step})
    first = rows[0]["cpu_seconds_a_step"]
    return [{**row, "ratio": row["cpu_seconds_a_step"] / first} for row in rows]  # type: ignore[operator]


def ours(pictures: Path, steps: int, out: Path, *more: str) -> list[str]:
    settings = {
        "data": pictures,
        "out": out,
        "size": SIZE,
        "batch_size": BATCH,
        "steps": steps,
        "adapter.rank": RANK,
        "adapter.targets": f"[{', '.join(TARGETS)}]",
        "ema": 0,
        "caption_mix": 1,
        "loggers": "[]",
        "sigma_shift": 1,
        "lr": 1e-4,
        **dict.fromkeys(("num_validation", "validate_every", "sample_every", "checkpoint_every"), 0),
    }
    code = "from urae.cli.main import app; app()"
    return [
        sys.executable,
        "-c",
        code,
        "train",
        "mini_2x",
        *(f"{key}={value}" for key, value in settings.items()),
        *more,
    ]


def theirs(script: Path, pictures: Path, steps: int, out: Path) -> list[str]:
    settings = {
        "pretrained_model_name_or_path": mini.WEIGHTS,
        "instance_data_dir": only_pictures(pictures),
        "instance_prompt": PROMPT,
        "output_dir": out,
        "resolution": SIZE,
        "train_batch_size": BATCH,
        "max_train_steps": steps,
        "checkpointing_steps": 10 * steps,
        "rank": RANK,
        "lora_alpha": RANK,
        "lora_layers": ",".join(TARGETS),
        "guidance_scale": 1,
        "learning_rate": 1e-4,
        "optimizer": "AdamW",
        "mixed_precision": "no",
        "max_sequence_length": TEXT,
        "seed": 0,
    }
    options = [word for key, value in settings.items() for word in (f"--{key}", str(value))]
    return [sys.executable, str(script), *options, "--cache_latents"]


def only_pictures(folder: Path) -> Path:
    """The pictures alone, since the script opens every file of its folder as one."""
    alone = folder.with_name("alone")
    alone.mkdir(exist_ok=True)
    for file in folder.glob("*.png"):
        (alone / file.name).write_bytes(file.read_bytes())
    return alone


def cpu_seconds(command: Sequence[str], threads: int) -> float:
    """Of a process and its children."""
    settings = {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1", "TORCHINDUCTOR_COMPILE_THREADS": "1"}
    before = children()
    done = subprocess.run(command, env={**os.environ, **settings}, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return children() - before


def children() -> float:
    times = os.times()
    return times.children_user + times.children_system


if __name__ == "__main__":
    main()

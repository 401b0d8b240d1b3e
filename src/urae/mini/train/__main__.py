"""Train the miniature from nothing, stage by stage:

    python -m urae.mini.train vae        # 8x autoencoder on crops of scenes at 128, 256 and 512 px
    python -m urae.mini.train base       # transformer and text encoders, flow matching at 128 px
    python -m urae.mini.train text       # word order for T5
    python -m urae.mini.train pairs      # flow matching again, mostly of two objects, until they are told apart
    python -m urae.mini.train distil     # guidance scale as an input, from the model's own guidance
    python -m urae.mini.train recogniser # what a picture shows, from true renderings alone
    python -m urae.mini.train ship       # write the diffusers folder that the package loads
    python -m urae.mini.train unpack     # the shipped weights as `vae` and `base`, to go on from

Every stage writes its weights and log (`<stage>.jsonl`) to `--out`. `base`, `pairs` and `distil` continue exactly when
started again, `vae` with a fresh optimizer; `text` and `recogniser` begin anew. Weights are fp32; `--dtype bf16`
computes matrix products and convolutions in bf16, up to twice as fast on processors with AVX-512 BF16 or AMX and on
GPUs, a hundred times slower on others.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import torch

from urae.mini.train.base import train_base
from urae.mini.train.distil import distil
from urae.mini.train.pairs import train_pairs
from urae.mini.train.recogniser import train_recogniser
from urae.mini.train.ship import ship, unpack
from urae.mini.train.text import train_text
from urae.mini.train.vae import train_vae

STAGES: dict[str, tuple[Callable[..., None], int]] = {
    "vae": (train_vae, 4000),
    "base": (train_base, 9_000),
    "text": (train_text, 1_500),
    "pairs": (train_pairs, 4_000),
    "distil": (distil, 1_700),
    "recogniser": (train_recogniser, 1500),
}
"""Stage -> its function and its number of steps."""

NEEDS = {
    "base": ["vae"],
    "text": ["vae", "base"],
    "pairs": ["vae", "base", "text"],
    "distil": ["vae", "pairs"],
    "ship": ["vae", "pairs", "distil", "recogniser"],
}
"""Stage -> those whose weights it reads."""

FILES: dict[str, Callable[[Path], None]] = {"ship": ship, "unpack": unpack}
"""What trains nothing."""

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stage", choices=[*STAGES, *FILES])
    parser.add_argument("--out", type=Path, default=Path(".cache/mini"))
    default = ", ".join(f"{num} for {name}" for name, (_, num) in STAGES.items())
    parser.add_argument("--steps", type=int, help=f"default: {default}")
    parser.add_argument(
        "--batch", type=int, help="scenes, crops or captions a step; default: the stage's own"
    )
    parser.add_argument("--device", help="default: cpu")
    parser.add_argument("--dtype", choices=DTYPES, help="of matrix products and convolutions; default: fp32")
    arguments = parser.parse_args()
    stage = arguments.stage
    if stage in FILES and (
        given := [
            name for name in ("steps", "batch", "device", "dtype") if getattr(arguments, name) is not None
        ]
    ):
        parser.error(f"{stage} trains nothing, so --{given[0]} has no effect: leave it out")
    for name in NEEDS.get(stage, []):
        if not (path := arguments.out / f"{name}.safetensors").exists():
            parser.error(
                f"{stage} needs {path}, which is not there: run {name} first, or name its folder with --out"
            )
    arguments.out.mkdir(parents=True, exist_ok=True)
    if stage in FILES:
        return FILES[stage](arguments.out)
    train, steps = STAGES[stage]
    dtype = DTYPES[arguments.dtype or "fp32"]
    batch = {} if arguments.batch is None else {"batch": arguments.batch}
    train(
        arguments.out, steps=arguments.steps or steps, device=arguments.device or "cpu", dtype=dtype, **batch
    )


if __name__ == "__main__":
    main()

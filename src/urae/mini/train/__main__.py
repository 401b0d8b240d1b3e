"""Train the miniature from nothing, stage by stage:

    python -m urae.mini.train vae        # 8x autoencoder on crops of scenes at 128, 256 and 512 px
    python -m urae.mini.train base       # transformer and text encoders, flow matching at 128 px
    python -m urae.mini.train distil     # guidance scale as an input, from the base's own guidance
    python -m urae.mini.train recogniser # what a picture shows, from true renderings alone
    python -m urae.mini.train ship       # write the diffusers folder that the package loads

Every stage writes its weights and log (`<stage>.jsonl`) to `--out`. `base` and `distil` continue exactly when
started again, `vae` with a fresh optimizer; `recogniser` begins anew. Weights are fp32; `--dtype bf16` computes
matrix products and convolutions in bf16, up to twice as fast on processors with AVX-512 BF16 or AMX and on GPUs,
a hundred times slower on others.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import torch

from urae.mini.train.base import train_base
from urae.mini.train.distil import distil
from urae.mini.train.recogniser import train_recogniser
from urae.mini.train.ship import ship
from urae.mini.train.vae import train_vae

STAGES: dict[str, tuple[Callable[..., None], int]] = {
    "vae": (train_vae, 4000),
    "base": (train_base, 9_000),
    "distil": (distil, 900),
    "recogniser": (train_recogniser, 1500),
}
"""Stage -> its function and its number of steps in the shipped weights."""

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stage", choices=[*STAGES, "ship"])
    parser.add_argument("--out", type=Path, default=Path(".cache/mini"))
    parser.add_argument("--steps", type=int, help="default: as in the shipped weights")
    parser.add_argument("--device", help="default: cpu")
    parser.add_argument("--dtype", choices=DTYPES, help="of matrix products and convolutions; default: fp32")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.stage == "ship":
        if given := [name for name in ("steps", "device", "dtype") if getattr(arguments, name) is not None]:
            parser.error(f"ship trains nothing, so --{given[0]} has no effect: leave it out")
        return ship(arguments.out)
    stage, steps = STAGES[arguments.stage]
    dtype = DTYPES[arguments.dtype or "fp32"]
    stage(arguments.out, steps=arguments.steps or steps, device=arguments.device or "cpu", dtype=dtype)


if __name__ == "__main__":
    main()

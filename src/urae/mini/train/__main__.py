"""Train the miniature from nothing, stage by stage:

    python -m urae.mini.train vae        # 8x autoencoder on crops of scenes at 128, 256 and 512 px
    python -m urae.mini.train base       # transformer and text encoders, flow matching at 128 px
    python -m urae.mini.train distil     # guidance scale as an input, from the base's own guidance
    python -m urae.mini.train recogniser # what a picture shows, from true renderings alone
    python -m urae.mini.train ship       # write the diffusers folder that the package loads

Every stage writes its checkpoint and log (`<stage>.jsonl`) to `--out` and continues from them when started
again. fp32 throughout: processors without AVX-512 or AMX compute bf16 a hundred times slower.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from urae.mini.train.base import train_base
from urae.mini.train.distil import distil
from urae.mini.train.recogniser import train_recogniser
from urae.mini.train.ship import ship
from urae.mini.train.vae import train_vae

STAGES: dict[str, tuple[Callable[..., None], int]] = {
    "vae": (train_vae, 1700),
    "base": (train_base, 5000),
    "distil": (distil, 400),
    "recogniser": (train_recogniser, 1500),
}
"""Stage -> its function and its number of steps in the shipped weights."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stage", choices=[*STAGES, "ship"])
    parser.add_argument("--out", type=Path, default=Path(".cache/mini"))
    parser.add_argument("--steps", type=int, help="default: as in the shipped weights")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.stage == "ship":
        return ship(arguments.out)
    stage, steps = STAGES[arguments.stage]
    stage(arguments.out, steps=arguments.steps or steps, device=arguments.device)


if __name__ == "__main__":
    main()

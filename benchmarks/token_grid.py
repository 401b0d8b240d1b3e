"""What a native grid of 16 x 16 tokens would cost beside the miniature's 8 x 8: `python benchmarks/token_grid.py`.

The transformer knows tokens, not pixels: 16 x 16 of them are 128 px with a VAE that reduces 4 times, or 256 px with the
present one. Times the miniature's transformer with random weights at the native grid and at twice and four times its
side, one call as in sampling and one training step forward and backward, and counts how much of the rotary
frequencies a native grid shows. Writes benchmarks/results/token_grid.json and token_grid.md.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from report import RESULTS, conditions, write

from urae.mini.model import TEXT_TOKENS, build_pipeline, build_vae

GRIDS = (8, 16)
BATCHES = {1: 32, 2: 4, 4: 2}
"""Times the native side -> images in a training step: of the base, of the 2x and of the 4x adapter."""
STEPS = 28
ROPES = {
    "miniature, 8 x 8": (8, 28),
    "miniature, 16 x 16": (16, 28),
    "FLUX.1, 64 x 64": (64, 56),
}
"""Native tokens along a side, and channels of one image axis."""
THETA = 10_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3, help="the fastest counts: others share the machine")
    parser.add_argument("--factors", type=int, nargs="*", default=list(BATCHES), help="times the native side")
    parser.add_argument("--batch", type=int, default=0, help="images in a step; default: the recipes'")
    parser.add_argument("--out", type=Path, default=RESULTS / "token_grid.json")
    options = parser.parse_args()
    transformer = build_pipeline(build_vae()).transformer
    rows = [
        timed(transformer, grid, factor, options.batch or BATCHES[factor], options.repeats)
        for grid in GRIDS
        for factor in options.factors
    ]
    turns = [{"model": name, **rotary(*settings)} for name, settings in ROPES.items()]
    command = f"python benchmarks/token_grid.py --repeats {options.repeats}"
    result = {**conditions("token_grid", command=command), "rows": rows, "rotary": turns}
    write(options.out, result)
    write(options.out.with_suffix(".md"), markdown(result))


def timed(transformer: Any, grid: int, factor: int, batch: int, repeats: int) -> dict[str, Any]:
    """CPU seconds of one call and of one training step, forward and backward, at `factor` times the native side."""
    side = grid * factor
    with torch.inference_mode():
        call = fastest(lambda: velocity(transformer, side, 1), repeats)
    step = fastest(lambda: velocity(transformer, side, batch).square().mean().backward(), repeats)
    return {
        "grid": grid,
        "factor": factor,
        "tokens": side * side,
        "call_seconds": round(call, 4),
        "picture_seconds": round(STEPS * call, 2),
        "batch": batch,
        "step_seconds": round(step, 3),
    }


def velocity(transformer: Any, side: int, batch: int) -> torch.Tensor:
    """Of noise on a grid of side x side tokens; (batch, side^2, 64)."""
    config, rows = transformer.config, torch.arange(side)
    ids = torch.stack([torch.zeros(side * side), rows.repeat_interleave(side), rows.repeat(side)], dim=1)
    return transformer(
        hidden_states=torch.randn(batch, side * side, config.in_channels),
        timestep=torch.full((batch,), 0.5),
        guidance=torch.ones(batch),
        encoder_hidden_states=torch.randn(batch, TEXT_TOKENS, config.joint_attention_dim),
        pooled_projections=torch.randn(batch, config.pooled_projection_dim),
        txt_ids=torch.zeros(TEXT_TOKENS, 3),
        img_ids=ids,
        return_dict=False,
    )[0]


def fastest(do: Callable[[], Any], repeats: int) -> float:
    """CPU seconds, all threads together."""
    seconds = []
    for _ in range(repeats + 1):  # the first one pays for what happens only once
        start = time.process_time()
        do()
        seconds.append(time.process_time() - start)
    return min(seconds[1:])


def rotary(grid: int, channels: int) -> dict[str, Any]:
    """How often the frequencies of an image axis turn within a native grid: a model can read places, and not only
    distances, from those that hardly turn. The fastest is 1 a token, whatever theta is."""
    omegas = [THETA ** (-2 * i / channels) for i in range(channels // 2)]
    turns = [omega * grid / (2 * math.pi) for omega in omegas]
    return {
        "frequencies": len(turns),
        "turns_of_the_fastest": round(turns[0], 2),
        "of_two_turns_or_more": sum(turn >= 2 for turn in turns),
        "of_one_turn_or_more": sum(turn >= 1 for turn in turns),
    }


def markdown(result: Mapping[str, Any]) -> str:
    lines = [
        "# 8 x 8 or 16 x 16 tokens",
        "",
        f"`{result['command']}`, {result['date'][:10]}, {result['machine']}, {result['threads']} thread(s), commit "
        f"{result['commit']}. CPU seconds of the miniature's transformer, random weights, {TEXT_TOKENS} text tokens; "
        f"a picture is {STEPS} calls, without its VAE.",
        "",
        "| native grid | times its side | tokens | picture | training step | of images |",
        "|---:|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {row['grid']} x {row['grid']} | {row['factor']} | {row['tokens']:,} | {row['picture_seconds']:.1f} s | "
        f"{row['step_seconds']:.2f} s | {row['batch']} |"
        for row in result["rows"]
    ]
    lines += [
        "",
        "| model | turns of the fastest frequency within the native grid | two or more | one or more | of |",
        "|---|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {row['model']} | {row['turns_of_the_fastest']} | {row['of_two_turns_or_more']} | "
        f"{row['of_one_turn_or_more']} | {row['frequencies']} |"
        for row in result["rotary"]
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()

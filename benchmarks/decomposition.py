"""Time of the partial decomposition against the full SVD, in one process: `python benchmarks/decomposition.py`.

Matrices of FLUX's size and dtype (bf16, as its weights come): a random one, the hardest case for the largest
triplets, and one whose singular values decay over four decades, nearer to trained weights. Each time is the best of
`--repeats`, and the full SVD is timed once in fp32 and once in fp64. CPU seconds stand beside wall seconds: with
`--threads 1` they stay meaningful on a busy machine. Writes benchmarks/results/decomposition.json.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from report import RESULTS, conditions, write
from torch import Tensor

from urae.adapters import decompose

NUM_MATRICES = 190  # to_q, to_k, to_v of 57 blocks and to_out.0 of 19 in FLUX.1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=3072)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=RESULTS / "decomposition.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = [row for name in MATRICES for row in measure(name, options)]
    write(
        options.out,
        {
            **conditions("decomposition", device=options.device, size=options.size, rank=options.rank),
            "rows": rows,
        },
    )


def random(size: int) -> Tensor:
    return torch.randn(size, size) / size**0.5


def decaying(size: int) -> Tensor:
    left, right = (torch.linalg.qr(torch.randn(size, size)).Q for _ in range(2))
    return (left * torch.logspace(0, -4, size)) @ right


MATRICES = {"random": random, "decaying": decaying}


def measure(name: str, options: argparse.Namespace) -> list[dict]:
    torch.manual_seed(0)
    weight = MATRICES[name](options.size).bfloat16().to(options.device)
    fp32, _ = timed(lambda: torch.linalg.svd(weight.float()), repeats=1)
    fp64, (U, S, Vh) = timed(lambda: torch.linalg.svd(weight.double()), repeats=1)
    rows = []
    for kind, chosen in (("smallest", slice(-options.rank, None)), ("largest", slice(None, options.rank))):
        ours, found = timed(
            lambda kind=kind: decompose(weight, rank=options.rank, kind=kind), repeats=options.repeats
        )
        product = (U[:, chosen] * S[chosen]) @ Vh[chosen]
        error = ((found.U * found.S) @ found.V.mT - product).norm() / product.norm()
        row = {
            "matrix": name,
            "kind": kind,
            "seconds": ours.wall,
            "cpu_seconds": ours.cpu,
            "svd_fp32_seconds": fp32.wall,
            "svd_fp32_cpu_seconds": fp32.cpu,
            "svd_fp64_seconds": fp64.wall,
            "svd_fp64_cpu_seconds": fp64.cpu,
            "times_faster_than_fp32": round(fp32.wall / ours.wall, 1),
            "times_less_cpu_than_fp32": round(fp32.cpu / ours.cpu, 1),
            "product_error": float(f"{error:.1e}"),
            "singular_value_error": float(f"{((found.S - S[chosen]) / S[chosen]).abs().max():.1e}"),
            "flux_minutes": round(NUM_MATRICES * ours.wall / 60, 1),
            "flux_cpu_minutes": round(NUM_MATRICES * ours.cpu / 60, 1),
        }
        print(json.dumps(row))
        rows.append(row)
    return rows


class Seconds(NamedTuple):
    wall: float
    cpu: float


def timed(compute: Callable, *, repeats: int) -> tuple[Seconds, Any]:
    """Best wall and best CPU time of `repeats`, and the last result."""
    walls, cpus = [], []
    for _ in range(repeats):
        synchronize()
        wall, cpu = time.perf_counter(), time.process_time()
        result = compute()
        synchronize()
        walls.append(round(time.perf_counter() - wall, 2))
        cpus.append(round(time.process_time() - cpu, 2))
    return Seconds(min(walls), min(cpus)), result


def synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()

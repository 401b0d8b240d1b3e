"""Training on the miniature, beside the published loop made anew: `python benchmarks/cpu.py`.

The published loop, as its code runs: the base loaded in fp32 for the decomposition, a full SVD of every target, the
frozen rest and the two factors beside each other as Y = X W_res + X A B, everything inside a block computed again in
the backward pass, Prodigy. It computes in bf16 on a GPU; here both compute in fp32, because most CPUs only emulate
bf16. Both sides run in one process on the same batch, and every ratio is within one run. CPU seconds stand beside
wall seconds: with `--threads 1` they stay meaningful on a busy machine. What happens once in a run, or now and then,
stands below with its share of the CPU seconds of a run of 2,000 of the longest steps. Writes
benchmarks/results/cpu.json.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import torch
from prodigyopt import Prodigy
from report import RESULTS, conditions, write
from torch import Tensor, nn

from urae import mini, recipes
from urae.adapters import PAPER_TARGETS, Attached, Minor, attach
from urae.adapters.targets import linear_layers, resolved, select
from urae.data import make_cache
from urae.execution.checkpointing import gradient_checkpointing
from urae.families.flux import Flux
from urae.resolution import text_tokens
from urae.training import train
from urae.training.checkpoint import Checkpoint, save_checkpoint
from urae.training.objective import Batch, velocity_error
from urae.training.optimizer import make_optimizer, optimizer_state
from urae.training.prediction import predictor

RANK = 16
RUN_STEPS = 2000
"""Of a run, for the share of what happens once."""
RUN_IMAGES, RUN_CHECKPOINTS = 160, 10
"""Of a run, `mini_4x`."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512])
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, default=RESULTS / "cpu.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = [show(row) for row in measurements(options)]
    write(options.out, {**conditions("cpu", rank=RANK), "rows": rows})


def measurements(options: argparse.Namespace) -> list[dict]:
    loading = timed(mini.pipeline, repeats=1, warm=False)
    pipe = mini.pipeline()
    steps = [row for size in options.sizes for row in (step(pipe, size, options), call(pipe, size, options))]
    longest = steps[-2]["urae_cpu_seconds"]
    once = [
        seldom("load the miniature", loading),
        start(pipe),
        *preparing(pipe, options),
        *writing(pipe, options),
    ]
    for row in once:
        cpu = row.get("urae_cpu_seconds", row.get("cpu_seconds"))
        row["share_of_a_run"] = round(cpu * row["times"] / (longest * RUN_STEPS), 5)
    return [*steps, *once]


# --- a training step, and a call -----------------------------------------------------------------------------


def step(pipe: Any, size: int, options: argparse.Namespace) -> dict:
    """One optimizer step, ours with nothing computed again: the plan's choice where memory is no matter."""
    batch = random_batch(pipe, size, options.batch)
    published = timed(published_step(pipe, batch), repeats=options.repeats)
    ways = {}
    for mode in (False, "attention", "full"):
        with ExitStack() as stack:
            ways[mode] = timed(our_step(pipe, batch, mode, stack), repeats=options.repeats)
    return {
        "what": "training step",
        "size": size,
        "batch": options.batch,
        **ratios(ways[False], published),
        "attention_kept_seconds": ways["attention"].wall,
        "all_computed_again_seconds": ways["full"].wall,
    }


def our_step(pipe: Any, batch: Batch, mode: Any, stack: ExitStack) -> Callable[[], None]:
    attached = attached_to(pipe, stack)
    stack.enter_context(gradient_checkpointing(pipe.transformer, mode))
    recipe = recipes.mini_4x(optimizer="prodigy", lr=1.0)
    optimizer = make_optimizer(attached.parameters(), recipe)
    return stepper(pipe.transformer, batch, optimizer, attached.parameters())


def attached_to(pipe: Any, stack: ExitStack) -> Attached:
    attached = attach(pipe.transformer, Minor(rank=RANK))
    stack.callback(attached.detach)
    return attached


def published_step(pipe: Any, batch: Batch) -> Callable[[], None]:
    """On a copy of the transformer: its targets are replaced."""
    transformer = type(pipe.transformer).from_config(pipe.transformer.config)
    transformer.load_state_dict(pipe.transformer.state_dict())
    transformer.requires_grad_(False)
    split(transformer)
    transformer.enable_gradient_checkpointing()
    parameters = [parameter for parameter in transformer.parameters() if parameter.requires_grad]
    optimizer = Prodigy(
        parameters, lr=1.0, use_bias_correction=True, safeguard_warmup=True, weight_decay=1e-4
    )
    return stepper(transformer, batch, optimizer, parameters)


def stepper(
    transformer: Any, batch: Batch, optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter]
) -> Callable[[], None]:
    predict = predictor(Flux(), transformer, guidance=1.0, base_dtype="fp32")

    def run() -> None:
        velocity_error(predict(batch), batch.velocity).mean().backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return run


class Split(nn.Module):
    """X W_res + X A B, as published: the minor triplets are taken out of the weight."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        A, B = full_svd(layer.weight)
        layer.weight.data -= B @ A
        self.layer, self.A, self.B = layer, nn.Parameter(A), nn.Parameter(B)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) + (x @ self.A.mT) @ self.B.mT


def full_svd(weight: Tensor) -> tuple[Tensor, Tensor]:
    U, S, V = torch.linalg.svd(weight.detach().float(), full_matrices=False)
    root = S[-RANK:].sqrt()
    return (V[-RANK:] * root[:, None]).contiguous(), (U[:, -RANK:] * root).contiguous()


def split(transformer: nn.Module) -> None:
    for name in targets(transformer):
        parent, _, child = name.rpartition(".")
        setattr(transformer.get_submodule(parent), child, Split(transformer.get_submodule(name)))


def targets(transformer: nn.Module) -> list[str]:
    return select(linear_layers(transformer), resolved(Minor(), transformer).targets)


def call(pipe: Any, size: int, options: argparse.Namespace) -> dict:
    predict = predictor(Flux(), pipe.transformer, guidance=3.5, base_dtype="fp32")
    batch = random_batch(pipe, size, 1)
    seconds = timed(torch.no_grad()(lambda: predict(batch)), repeats=options.repeats)
    return {
        "what": "call of the transformer",
        "size": size,
        "seconds": seconds.wall,
        "cpu_seconds": seconds.cpu,
    }


# --- what happens once in a run, or now and then -------------------------------------------------------------


def start(pipe: Any) -> dict:
    """The decomposition of every target, up to a trainable adapter."""
    layers = linear_layers(pipe.transformer)
    names = targets(pipe.transformer)
    published = timed(lambda: [full_svd(layers[name].weight) for name in names], repeats=1)
    with ExitStack() as stack:
        ours = timed(lambda: attached_to(pipe, stack), repeats=1, warm=False)
    return {"what": "decompose and attach", "times": 1, "num_matrices": len(names), **ratios(ours, published)}


def preparing(pipe: Any, options: argparse.Namespace) -> list[dict]:
    """The cache of an image, and all that a run does but train: one of a single step."""
    size, num = options.sizes[-1], 2 * options.batch
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images = mini.write_dataset(folder / "images", num, size)
        caching = timed(lambda: make_cache(pipe, images, folder / "cache", size=size), repeats=1, warm=False)
        recipe = recipes.mini_4x(
            data=str(folder / "cache"),
            out=str(folder / "run"),
            size=size,
            batch_size=options.batch,
            start="",
            steps=1,
            num_validation=0,
            validate_every=0,
            sample_every=0,
            loggers=(),
            **{"adapter.targets": PAPER_TARGETS},
        )
        one = timed(lambda: train(pipe, recipe), repeats=1, warm=False)
    image = Seconds(round(caching.wall / num, 4), round(caching.cpu / num, 4))
    return [
        seldom("cache an image with its captions", image, times=RUN_IMAGES),
        seldom("a run of one step, from its start to its file", one),
    ]


def writing(pipe: Any, options: argparse.Namespace) -> list[dict]:
    """A checkpoint, and the adapter's file."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        attached = attached_to(pipe, stack)
        optimizer = make_optimizer(attached.parameters(), recipes.mini_4x(optimizer="prodigy", lr=1.0))
        stepper(pipe.transformer, random_batch(pipe, 256, 1), optimizer, attached.parameters())()
        tensors, rest = optimizer_state(optimizer)
        groups = {"adapter": attached.state_dict(), "optimizer": tensors}
        steps = iter(range(1, 1000))
        checkpoint = timed(
            lambda: save_checkpoint(
                Checkpoint(step=next(steps), tensors=groups, state={"optimizer": rest}), folder, keep=2
            ),
            repeats=options.repeats,
        )
        adapter = timed(lambda: attached.export().save(folder / "a.safetensors"), repeats=options.repeats)
    return [
        seldom("write a checkpoint", checkpoint, times=RUN_CHECKPOINTS),
        seldom("export the adapter", adapter),
    ]


def random_batch(pipe: Any, size: int, num: int) -> Batch:
    config, generator = pipe.transformer.config, torch.Generator().manual_seed(0)
    shape = (num, config.in_channels // 4, size // 8, size // 8)
    return Batch(
        clean=torch.randn(shape, generator=generator),
        noise=torch.randn(shape, generator=generator),
        sigma=torch.full((num,), 0.5),
        embeddings={
            "prompt_embeds": torch.randn(
                num, text_tokens(pipe), config.joint_attention_dim, generator=generator
            ),
            "pooled_prompt_embeds": torch.randn(num, config.pooled_projection_dim, generator=generator),
        },
    )


# --- measuring ---------------------------------------------------------------------------------------------


def seldom(what: str, seconds: Seconds, *, times: int = 1) -> dict:
    return {"what": what, "times": times, "seconds": seconds.wall, "cpu_seconds": seconds.cpu}


class Seconds(NamedTuple):
    wall: float
    cpu: float


def timed(run: Callable[[], Any], *, repeats: int, warm: bool = True) -> Seconds:
    """The best wall and the best CPU time."""
    if warm:
        run()
    walls, cpus = [], []
    for _ in range(repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        run()
        walls.append(round(time.perf_counter() - wall, 4))
        cpus.append(round(time.process_time() - cpu, 4))
    return Seconds(min(walls), min(cpus))


def ratios(ours: Seconds, published: Seconds) -> dict:
    return {
        "urae_seconds": ours.wall,
        "urae_cpu_seconds": ours.cpu,
        "published_seconds": published.wall,
        "published_cpu_seconds": published.cpu,
        "times_faster": round(published.wall / ours.wall, 2),
        "times_less_cpu": round(published.cpu / ours.cpu, 2),
    }


def show(row: dict) -> dict:
    print(json.dumps(row), flush=True)
    return row


if __name__ == "__main__":
    main()

"""FLUX.1 at full size on one GPU: `python benchmarks/gpu.py`, ten minutes.

The architecture with random weights, so nothing is downloaded, in bf16:

- a training step on one image at 1024, 2048 and 4096 px, by stock parts as their documentation puts them together
  ("plain": a peft LoRA, full checkpointing, eager), and as `urae train` runs it ("urae": the fastest settings that
  fit by `urae plan`, the attention kernel measured, blocks compiled);
- the step at 2048 and 4096 px with a base that is stored and multiplied in fp8;
- the same step planned for a GPU of 16 GiB (2048 px) and of 24 GiB (4096 px), whose peak tells whether it fits;
- the step at 2048 and 4096 px with activations, all blocks' weights, or both in the host's memory; on a CPU, which
  has no other, these rows are left out;
- one call of the transformer as sampling makes it, at these sizes and 8192 px;
- the VAE at 4096 px, whole, and as `urae` runs it;
- what happens once in a run, or now and then: one of the 190 decompositions, a checkpoint, an image's encoding, and the
  first step, each with its share of a run of 2,000 steps of batch 8.

Each row says seconds, peak memory, the ratio to the plain way, and for the transformer the ratio to the floor: the
operations of the same step, if the GPU ran at 80% of its peak rate and nothing else took time. What does not fit is
a row too. Writes a JSON, which `urae plan` reads, and a table in Markdown beside it. `--tiny --device cpu` runs the
same code on a small architecture in seconds, and its numbers mean nothing.
"""

from __future__ import annotations

import argparse
import gc
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, FluxTransformer2DModel
from diffusers.training_utils import cast_training_params
from peft import LoraConfig
from report import RESULTS, conditions, write

from urae import recipes
from urae.adapters import Lora, attach, decompose
from urae.adapters.targets import linear_layers, resolved, select
from urae.execution import (
    Carrier,
    HostCheckpointing,
    attention_for_training,
    compiled_blocks,
    encoding_way,
    free_bytes,
    gradient_checkpointing,
    quantised,
    vae_run,
)
from urae.execution.attention import without_cudnn
from urae.execution.modules import repeated_blocks
from urae.execution.swap import swapped_blocks
from urae.families.flux import Flux
from urae.families.flux.pipelines import VAE
from urae.planning import Gpu, gpu_here, plan
from urae.planning.compute import Tokens, step_work, trained_by
from urae.training import Recipe
from urae.training.checkpoint import Checkpoint, save_checkpoint
from urae.training.objective import Batch, velocity_error
from urae.training.optimizer import make_optimizer, optimizer_state
from urae.training.prediction import predictor

FLOOR = 0.8
"""Of the peak rate: what the best kernels reach on large matrices."""

ENOUGH = 10
"""Seconds after which a measurement is not repeated."""

RUN_STEPS, RUN_BATCH, RUN_CHECKPOINTS, RUN_IMAGES = 2000, 8, 10, 3000
"""Of the paper's run at 2048 px, for the share of what happens now and then."""

SMALL_GPUS = {16: 2048, 24: 4096}
"""GiB, and the side in px at which a step is to fit."""

TINY = {
    "num_layers": 1,
    "num_single_layers": 1,
    "num_attention_heads": 2,
    "attention_head_dim": 32,
    "axes_dims_rope": (8, 12, 12),
    "joint_attention_dim": 32,
    "pooled_projection_dim": 24,
}
TINY_VAE = {**VAE, "block_out_channels": [8, 8, 8, 8], "layers_per_block": 1, "norm_num_groups": 2}


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What is measured, and where."""

    device: torch.device
    dtype: torch.dtype
    gpu: Gpu
    model: str
    """Whose settings are planned."""
    transformer: dict[str, Any]
    vae: dict[str, Any]
    train_sizes: tuple[int, ...]
    run_size: int
    """Of the run that shares are of."""
    host_sizes: tuple[int, ...]
    """At which the host's memory helps; none where there is no other."""
    small_gpus: dict[int, int]
    """As `SMALL_GPUS`."""
    call_sizes: tuple[int, ...]
    vae_size: int
    text_tokens: int
    repeats: int
    compile: bool


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="a small architecture, to try the code")
    parser.add_argument("--minutes", type=float, default=10, help="begin no row after this")
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--out", type=Path, default=RESULTS / "gpu.json")
    options = parser.parse_args()
    bench = bench_of(options)
    started, rows = time.perf_counter(), list[dict]()
    waiting = list(measurements(bench))
    while waiting and time.perf_counter() - started < 60 * options.minutes:
        rows.append(waiting.pop(0)())
        print(json.dumps(rows[-1]), flush=True)
        # After each row, so that a run that is stopped leaves what it has.
        publish(bench, rows, waiting, options.out)


def publish(bench: Bench, rows: list[dict], waiting: list[partial], out: Path) -> None:
    """Write what was measured, and what was not yet."""
    late = [
        f"{what}, {way}, {size} px: no time was left" for _, what, way, size, _ in (w.args for w in waiting)
    ]
    result = {
        **conditions(
            "gpu",
            gpu=bench.gpu.name,
            dtype=str(bench.dtype).removeprefix("torch."),
            peak_tflops=bench.gpu.tflops,
            floor=FLOOR,
        ),
        "left_out": [*left_out(bench), *late],
        "rows": with_shares(bench, with_ratios(rows)),
    }
    write(out, result)
    write(out.with_suffix(".md"), table(result))


def bench_of(options: argparse.Namespace) -> Bench:
    device = torch.device(options.device)
    small = options.tiny
    return Bench(
        device=device,
        dtype=torch.bfloat16 if device.type == "cuda" else torch.float32,
        gpu=gpu_here(device) if device.type == "cuda" else Gpu(name="cpu", memory=1000, tflops=0.1),
        model="mini" if small else recipes.flux_2k().model,
        transformer={**(TINY if small else {}), "guidance_embeds": True},
        vae=TINY_VAE if small else VAE,
        train_sizes=(32, 64) if small else (1024, 2048, 4096),
        run_size=32 if small else 2048,
        host_sizes=host_sizes(device, small=small),
        small_gpus=small_gpus(device, small=small),
        call_sizes=(32, 64, 128) if small else (1024, 2048, 4096, 8192),
        vae_size=128 if small else 4096,
        text_tokens=8 if small else 512,
        repeats=1 if small else 3,
        compile=not options.no_compile and device.type == "cuda",
    )


def host_sizes(device: torch.device, *, small: bool) -> tuple[int, ...]:
    if device.type == "cpu":
        return ()
    return (64,) if small else (2048, 4096)


def small_gpus(device: torch.device, *, small: bool) -> dict[int, int]:
    if device.type == "cpu":
        return {}
    return {1: 64} if small else SMALL_GPUS


def left_out(bench: Bench) -> list[str]:
    """What is not measured, and why."""
    if bench.host_sizes:
        return []
    ways = [*HOST, *(way for memory in SMALL_GPUS for way in within(memory))]
    return [f"train step, {way}: on a CPU nothing is moved to the host's memory" for way in ways]


def measurements(bench: Bench) -> Iterator[partial]:
    """Every row, those last that `--minutes` may cut off."""
    *sizes, largest = bench.call_sizes
    *smaller, highest = bench.train_sizes
    kinds = [
        *(("train step", size, STEP) for size in smaller),
        *(("call", size, CALL) for size in sizes),
        ("train step", highest, STEP),
        *(("train step", size, FP8) for size in bench.train_sizes[1:]),
        *(("train step", size, within(memory)) for memory, size in bench.small_gpus.items()),
        ("decompose a matrix", bench.run_size, DECOMPOSE),
        ("write a checkpoint", bench.run_size, WRITE),
        *(("encode", size, ENCODE) for size in (bench.run_size, bench.vae_size)),
        ("decode", bench.vae_size, DECODE),
        ("call", largest, CALL),
        *(("train step", size, HOST) for size in bench.host_sizes),
    ]
    for what, size, ways in kinds:
        for way, make in ways.items():
            yield partial(row, bench, what, way, size, make)


def row(bench: Bench, what: str, way: str, size: int, make: Callable) -> dict:
    """One measurement. `make(bench, size, notes)` is a context that gives the function to be timed, and may note
    how it runs."""
    notes: dict[str, Any] = {}
    found = {"what": what, "way": way, "size": size}
    free(bench)
    try:
        with make(bench, size, notes) as run:
            before = time.perf_counter()
            run()  # compiles, and fills caches
            wait(bench)
            first = time.perf_counter() - before
            notes["first_seconds"] = round(first, 3)
            # What takes long and compiles nothing is as long the second time.
            once = first > 2 * ENOUGH and "compiled" not in notes.get("settings", "")
            seconds = first if once else best(bench, run)
            notes["peak_gb"] = peak_gb(bench)
    except torch.OutOfMemoryError:
        return {**found, "failed": "out of memory", **notes}
    except Exception as error:  # the other rows are worth having, and this one says why it is not there
        return {**found, "failed": f"{type(error).__name__}: {error}"[:300], **notes}
    finally:
        free(bench)
    floor = against_floor(bench, seconds, notes.pop("flops")) if "flops" in notes else {}
    return {**found, "seconds": round(seconds, 4), **floor, **notes}


def against_floor(bench: Bench, seconds: float, flops: int) -> dict:
    rate = bench.gpu.tflops * 1e12
    floor = flops / (FLOOR * rate)
    return {
        "tflop": round(flops / 1e12, 2),
        "efficiency": round(flops / seconds / rate, 4),
        "floor_seconds": round(floor, 4),
        "times_floor": round(seconds / floor, 2),
    }


# --- a training step ---------------------------------------------------------------------------------------


@contextmanager
def plain_step(bench: Bench, size: int, notes: dict) -> Iterator[Callable[[], None]]:
    """Stock parts: `add_adapter`, AdamW, all activations recomputed."""
    transformer = random_transformer(bench)
    transformer.requires_grad_(False)
    transformer.add_adapter(
        LoraConfig(r=16, lora_alpha=16, target_modules=list(resolved(Lora(), transformer).targets))
    )
    transformer.enable_gradient_checkpointing()
    cast_training_params(transformer)
    parameters = [parameter for parameter in transformer.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-4)
    notes |= {"settings": "checkpointing full, eager", "flops": step_flops(transformer, bench, size, "full")}
    with without_cudnn():  # whose backward pass ends the process (urae.execution.attention)
        yield stepper(bench, size, transformer, optimizer)


@contextmanager
def our_step(bench: Bench, size: int, notes: dict) -> Iterator[Callable[[], None]]:
    """As `urae train` runs it, by the fastest settings that the plan finds to fit."""
    with planned_step(bench, size, notes, bench.gpu) as step:
        yield step


@contextmanager
def step_within(bench: Bench, size: int, notes: dict, memory: int) -> Iterator[Callable[[], None]]:
    """The same as on a GPU of `memory` GiB: the peak says whether it would have fitted."""
    with planned_step(bench, size, notes, replace(bench.gpu, memory=memory)) as step:
        yield step


@contextmanager
def planned_step(bench: Bench, size: int, notes: dict, gpu: Gpu) -> Iterator[Callable[[], None]]:
    recipe = replace(one_image(bench, size), compile=bench.compile)
    best = plan(recipe, gpu).best
    if best is None:
        raise RuntimeError(f"by the plan no settings fit in {gpu.memory:g} GiB")
    notes["planned_gb"] = round(best.phases["training"] / 1e9, 2)
    with step_by(best.recipe, bench, notes) as step:
        yield step


@contextmanager
def step_with(bench: Bench, size: int, notes: dict, **settings: Any) -> Iterator[Callable[[], None]]:
    """With these settings, whether or not anything else would fit."""
    with step_by(replace(one_image(bench, size), **settings), bench, notes) as step:
        yield step


@contextmanager
def compiled_step(bench: Bench, size: int, notes: dict, **settings: Any) -> Iterator[Callable[[], None]]:
    """The same with blocks compiled, where they are in the other rows."""
    with step_with(bench, size, notes, compile=bench.compile, **settings) as step:
        yield step


def one_image(bench: Bench, size: int) -> Recipe:
    one = {"batch_size": 1, "size": size, "sample_every": 0, "optimizer": "adamw", "lr": 1e-4}
    dtype = "bf16" if bench.dtype == torch.bfloat16 else "fp32"
    return recipes.flux_2k(**one, model=bench.model, base_dtype=dtype, gradient_checkpointing="full")


@contextmanager
def step_by(recipe: Recipe, bench: Bench, notes: dict) -> Iterator[Callable[[], None]]:
    """A step as `urae train` puts it together from this recipe."""
    size, mode = recipe.size, recipe.gradient_checkpointing
    transformer = host_transformer(bench) if recipe.swap_blocks else random_transformer(bench)
    attached = attach(transformer, recipe.adapter)
    offload = HostCheckpointing(Carrier(bench.device)) if recipe.offload_activations else None
    num = min(recipe.swap_blocks, len(repeated_blocks(transformer)))
    with ExitStack() as stack:
        if recipe.base_weights != "as_loaded":
            stack.enter_context(
                quantised(transformer, recipe.base_weights, device=None if num else bench.device)
            )
        if num:
            stack.enter_context(swapped_blocks(transformer, num, Carrier(bench.device)))
        kernel = stack.enter_context(kernel_for(bench, transformer, size, mode))
        stack.enter_context(compiled_blocks(transformer, recipe.compile))
        stack.enter_context(
            gradient_checkpointing(transformer, mode, compiled=recipe.compile, offload=offload)
        )
        flops = step_flops(transformer, bench, size, mode)
        notes |= {"settings": in_words(recipe), "attention": kernel or "torch's choice", "flops": flops}
        yield stepper(bench, size, transformer, make_optimizer(attached.parameters(), recipe))


def in_words(recipe: Recipe) -> str:
    words = [
        f"checkpointing {str(recipe.gradient_checkpointing).lower()}",
        "compiled" if recipe.compile else "eager",
        *(["activations on the host"] if recipe.offload_activations else []),
        *([f"base in {recipe.base_weights}"] if recipe.base_weights != "as_loaded" else []),
        *([f"weights of {recipe.swap_blocks} blocks on the host"] if recipe.swap_blocks else []),
    ]
    return ", ".join(words)


def stepper(
    bench: Bench, size: int, transformer: Any, optimizer: torch.optim.Optimizer
) -> Callable[[], None]:
    base_dtype = "bf16" if bench.dtype == torch.bfloat16 else "fp32"
    predict = predictor(Flux(), transformer, guidance=1.0, base_dtype=base_dtype)
    batch = random_batch(bench, size)

    def step() -> None:
        velocity_error(predict(batch), batch.velocity).mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def step_flops(transformer: Any, bench: Bench, size: int, mode: Any) -> int:
    tokens = Tokens(image=(size // 16) ** 2, text=bench.text_tokens)
    return step_work(trained_by(architecture(transformer), Lora(rank=16)), tokens, mode).total


def architecture(transformer: Any) -> Any:
    """The same without weights and adapters."""
    with torch.device("meta"):
        return FluxTransformer2DModel.from_config(transformer.config)


# --- a call of the transformer, as sampling makes it ---------------------------------------------------------


@contextmanager
def plain_call(bench: Bench, size: int, notes: dict) -> Iterator[Callable[[], Any]]:
    transformer = random_transformer(bench)
    notes |= {"settings": "eager", "flops": call_flops(transformer, bench, size)}
    yield caller(bench, size, transformer)


@contextmanager
def our_call(bench: Bench, size: int, notes: dict) -> Iterator[Callable[[], Any]]:
    transformer = random_transformer(bench)
    with compiled_blocks(transformer, bench.compile):
        notes |= {"settings": "compiled" if bench.compile else "eager", "attention": "torch's choice"}
        notes |= {"flops": call_flops(transformer, bench, size)}
        yield caller(bench, size, transformer)


def caller(bench: Bench, size: int, transformer: Any) -> Callable[[], Any]:
    predict = predictor(Flux(), transformer, guidance=3.5, base_dtype="fp32")
    batch = random_batch(bench, size)
    return torch.no_grad()(lambda: predict(batch))


def call_flops(transformer: Any, bench: Bench, size: int) -> int:
    tokens = Tokens(image=(size // 16) ** 2, text=bench.text_tokens)
    # An adapter of rank 1 on one layer is nothing beside the model.
    spec = Lora(rank=1, targets=("transformer_blocks.0.attn.to_q",))
    return step_work(trained_by(architecture(transformer), spec), tokens, False).forward


# --- the VAE -----------------------------------------------------------------------------------------------


@contextmanager
def encode_whole(bench: Bench, size: int, notes: dict) -> Iterator[Callable[[], Any]]:
    vae, pixels = random_vae(bench), random_pixels(bench, size)
    notes["settings"] = "whole"
    yield torch.no_grad()(lambda: vae.encode(pixels))


@contextmanager
def encode_as_cached(bench: Bench, size: int, notes: dict) -> Iterator[Callable[[], Any]]:
    vae, pixels = random_vae(bench), random_pixels(bench, size)
    chosen = encoding_way(vae, (size, size), "exact", free=free_bytes(bench.device))
    notes["settings"] = f"strips; the cache would choose {chosen}"
    notes |= {"times": RUN_IMAGES} if size == bench.run_size else {}
    with vae_run(vae, "strips"):
        yield torch.no_grad()(lambda: vae.encode(pixels))


@contextmanager
def decode_whole(bench: Bench, size: int, notes: dict) -> Iterator[Callable[[], Any]]:
    vae, latents = random_vae(bench), random_latents(bench, size)
    notes["settings"] = "whole"
    yield torch.no_grad()(lambda: vae.decode(latents))


@contextmanager
def decode_in_strips(bench: Bench, size: int, notes: dict) -> Iterator[Callable[[], Any]]:
    vae, latents = random_vae(bench), random_latents(bench, size)
    notes["settings"] = "strips: the same picture"
    with vae_run(vae, "strips"):
        yield torch.no_grad()(lambda: vae.decode(latents))


@contextmanager
def decode_in_tiles(bench: Bench, size: int, notes: dict) -> Iterator[Callable[[], Any]]:
    vae, latents = random_vae(bench), random_latents(bench, size)
    vae.enable_tiling()
    notes["settings"] = "tiles: another picture"
    yield torch.no_grad()(lambda: vae.decode(latents))


# --- once in a run, and now and then -------------------------------------------------------------------------


@contextmanager
def full_svd(bench: Bench, size: int, notes: dict) -> Iterator[Callable[[], Any]]:
    weight = random_weight(bench, notes)
    yield lambda: torch.linalg.svd(weight.float(), full_matrices=False)


@contextmanager
def smallest_triplets(bench: Bench, size: int, notes: dict) -> Iterator[Callable[[], Any]]:
    weight = random_weight(bench, notes)
    yield lambda: decompose(weight, rank=16, kind="smallest")


def random_weight(bench: Bench, notes: dict) -> torch.Tensor:
    with torch.device("meta"):
        transformer = FluxTransformer2DModel(**bench.transformer)
    notes["times"] = len(select(linear_layers(transformer), resolved(Lora(), transformer).targets))
    side = transformer.inner_dim
    return (torch.randn(side, side, device=bench.device) / side**0.5).to(bench.dtype)


@contextmanager
def written(bench: Bench, size: int, notes: dict) -> Iterator[Callable[[], Any]]:
    """The trained parameters and Prodigy's state, forced to disk."""
    notes["times"] = RUN_CHECKPOINTS
    attached = attach(random_transformer(bench), Lora(rank=16))
    optimizer = make_optimizer(attached.parameters(), recipes.flux_2k())
    for parameter in attached.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    steps = iter(range(1, 1000))
    with tempfile.TemporaryDirectory() as folder:

        def write_one() -> None:
            tensors, rest = optimizer_state(optimizer)
            groups = {"adapter": attached.state_dict(), "optimizer": tensors}
            found = Checkpoint(step=next(steps), tensors=groups, state={"optimizer": rest})
            save_checkpoint(found, Path(folder), keep=2)

        yield write_one


def within(memory: int) -> dict[str, Callable]:
    return {f"in {memory} GiB": partial(step_within, memory=memory)}


STEP = {"plain": plain_step, "urae": our_step}
FP8 = {"in fp8": partial(compiled_step, base_weights="fp8_dynamic", gradient_checkpointing="attention")}
ACTIVATIONS = {"offload_activations": True, "gradient_checkpointing": "attention"}
WEIGHTS = {"swap_blocks": 57}
HOST = {
    "activations on the host": partial(step_with, **ACTIVATIONS),
    "weights on the host": partial(step_with, **WEIGHTS),
    "both on the host": partial(step_with, **ACTIVATIONS, **WEIGHTS),
}
CALL = {"plain": plain_call, "urae": our_call}
DECOMPOSE = {"plain": full_svd, "urae": smallest_triplets}
WRITE = {"urae": written}
ENCODE = {"plain": encode_whole, "urae": encode_as_cached}
DECODE = {"plain": decode_whole, "urae": decode_in_strips, "tiles": decode_in_tiles}


# --- random models and inputs ------------------------------------------------------------------------------


@contextmanager
def made_on(bench: Bench) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(bench.dtype)
    try:
        with bench.device:
            yield
    finally:
        torch.set_default_dtype(before)


def random_transformer(bench: Bench) -> FluxTransformer2DModel:
    with made_on(bench):
        return FluxTransformer2DModel(**bench.transformer)


def host_transformer(bench: Bench) -> FluxTransformer2DModel:
    """In the host's memory, of a million random numbers over and over: drawing all would take minutes there."""
    numbers = 0.02 * torch.randn(2**20, dtype=bench.dtype)
    transformer = random_transformer(replace(bench, device=torch.device("meta"))).to_empty(device="cpu")
    for parameter in transformer.parameters():
        flat = parameter.detach().view(-1)
        for start in range(0, len(flat), len(numbers)):
            part = flat[start : start + len(numbers)]
            part.copy_(numbers[: len(part)])
    return transformer


def random_vae(bench: Bench) -> AutoencoderKL:
    with made_on(bench):
        return AutoencoderKL(**bench.vae)


def random_pixels(bench: Bench, size: int) -> torch.Tensor:
    return torch.rand(1, 3, size, size, device=bench.device, dtype=bench.dtype) * 2 - 1


def random_latents(bench: Bench, size: int) -> torch.Tensor:
    return torch.randn(1, 16, size // 8, size // 8, device=bench.device, dtype=bench.dtype)


def random_batch(bench: Bench, size: int) -> Batch:
    config = {"joint_attention_dim": 4096, "pooled_projection_dim": 768, **bench.transformer}
    shape = (1, 16, size // 8, size // 8)
    return Batch(
        clean=torch.randn(shape, device=bench.device),
        noise=torch.randn(shape, device=bench.device),
        sigma=torch.full((1,), 0.5, device=bench.device),
        embeddings={
            "prompt_embeds": torch.randn(
                1, bench.text_tokens, config["joint_attention_dim"], device=bench.device
            ),
            "pooled_prompt_embeds": torch.randn(1, config["pooled_projection_dim"], device=bench.device),
        },
    )


def kernel_for(bench: Bench, transformer: Any, size: int, mode: Any) -> Any:
    return attention_for_training(
        transformer,
        bench.device,
        num_tokens=(size // 16) ** 2 + bench.text_tokens,
        num_images=1,
        checkpointing=mode,
    )


# --- measuring ---------------------------------------------------------------------------------------------


def best(bench: Bench, run: Callable[[], Any]) -> float:
    """Seconds of the fastest call; what takes long is not repeated."""
    found: list[float] = []
    while len(found) < bench.repeats and sum(found) < ENOUGH:
        found.append(timed(bench, run))
    return min(found)


def timed(bench: Bench, run: Callable[[], Any]) -> float:
    wait(bench)
    started = time.perf_counter()
    run()
    wait(bench)
    return time.perf_counter() - started


def wait(bench: Bench) -> None:
    if bench.device.type == "cuda":
        torch.cuda.synchronize()


def free(bench: Bench) -> None:
    """Forget what was compiled, and free the memory of a GPU, which is measured; a CPU's is not."""
    if bench.compile:
        torch.compiler.reset()
    if bench.device.type == "cuda":
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_gb(bench: Bench) -> float:
    """Of tensors, 10^9 bytes; 0 where torch does not count them."""
    return round(torch.cuda.max_memory_allocated() / 1e9, 2) if bench.device.type == "cuda" else 0.0


def with_ratios(rows: list[dict]) -> list[dict]:
    """Each row with how many times faster than the plain one of its kind it is."""
    plain = {(r["what"], r["size"]): r["seconds"] for r in rows if r["way"] == "plain" and "seconds" in r}
    return [
        {**r, "times_faster_than_plain": round(plain[r["what"], r["size"]] / r["seconds"], 2)}
        if r["way"] != "plain" and "seconds" in r and (r["what"], r["size"]) in plain
        else r
        for r in rows
    ]


def with_shares(bench: Bench, rows: list[dict]) -> list[dict]:
    """Rows of what happens now and then with their share of a run, and one for what the first step takes longer."""
    steps = [r for r in rows if (r["what"], r["way"], r["size"]) == ("train step", "urae", bench.run_size)]
    if not steps or "seconds" not in steps[0]:
        return rows
    step = steps[0]
    extra = max(round(step["first_seconds"] - step["seconds"], 3), 0.0)
    first = {"what": "first step", "way": "urae", "size": bench.run_size, "seconds": extra, "times": 1}
    run = RUN_STEPS * RUN_BATCH * step["seconds"]
    return [
        {**r, "share_of_a_run": round(r["seconds"] * r["times"] / run, 6)}
        if "times" in r and "seconds" in r
        else r
        for r in (*rows, first)
    ]


COLUMNS = {
    "what": "what",
    "size": "size, px",
    "way": "way",
    "settings": "settings",
    "seconds": "seconds",
    "peak_gb": "peak, GB",
    "planned_gb": "planned, GB",
    "times_faster_than_plain": "times faster than plain",
    "times_floor": "times the floor",
    "times": "times in a run",
    "share_of_a_run": "share of a run",
}


def table(result: dict) -> str:
    """The rows in Markdown."""
    head = (
        f"{result['gpu']}, torch {result['torch']}, {result['dtype']}, {result['date']}, {result['commit']}"
    )
    lines = [
        f"{head}. Floor: the same operations at {result['floor']:.0%} of {result['peak_tflops']:g} TFLOP/s.",
        "",
        "| " + " | ".join(COLUMNS.values()) + " |",
        "|---" * len(COLUMNS) + "|",
    ]
    for found in result["rows"]:
        cells = {**found, "seconds": found.get("seconds", found.get("failed"))}
        lines.append("| " + " | ".join(str(cells.get(column, "")) for column in COLUMNS) + " |")
    without = [f"Left out: {'; '.join(result['left_out'])}."] if result["left_out"] else []
    return "\n".join([*lines, *([""] if without else []), *without]) + "\n"


if __name__ == "__main__":
    main()

"""Caching and loading, in one process on the miniature: `python benchmarks/data.py`.

- caching: `make_cache` on clean scenes against plain loops that open and encode the same images with the same VAE,
  and embed the same captions, and write nothing. The two take turns over parts of the images, so that what else the
  machine does hits both. Wall and CPU seconds: with `--threads 1` the latter stay meaningful on a busy machine.
- loading: samples a second out of the cache, by workers, against what a training step takes; and out of entries of
  the shape that FLUX.1 has at 4096 px.
- storing: bytes of the full and the small form, on disk here and by shape for FLUX.1, and what the small form, a std
  that positions share, and captions trimmed to their own tokens change: in the tensors, and in the velocity.

Writes benchmarks/results/data.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from report import RESULTS, conditions, write
from torch import Tensor

from urae import mini
from urae.adapters import Lora
from urae.data import (
    Cache,
    CachedDataset,
    Entry,
    Record,
    Sample,
    Source,
    make_cache,
    read_records,
    write_manifest,
)
from urae.data.compact import restored, small
from urae.data.store import Folder, part_name, serialized
from urae.families import Posterior, family_of
from urae.training import Recipe, read_metrics, train

ROUNDS = 5
BATCH = 4
LARGE = {"mean": (16, 512, 512), "std": (16, 512, 512)}
TEXT = {"pooled_prompt_embeds": (768,), "prompt_embeds": (512, 4096)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--steps", type=int, default=5, help="training steps that are timed")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, default=RESULTS / "data.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        write(
            options.out,
            {
                **conditions("data", images=options.images, size=options.size),
                **measure(Path(folder), options),
            },
        )


def measure(folder: Path, options: argparse.Namespace) -> dict:
    images = mini.write_dataset(folder / "images", options.images, options.size)
    pipe = mini.pipeline()
    caching, made = measure_caching(pipe, images, folder, options)
    print(json.dumps(caching, indent=1))
    loading = measure_loading(made, folder, options)
    print(json.dumps(loading, indent=1))
    storing = measure_storing(pipe, made, images, folder, options)
    print(json.dumps(storing, indent=1))
    return {"caching": caching, "loading": loading, "storing": storing}


# --- caching -----------------------------------------------------------------------------------------------


def measure_caching(pipe: Any, images: Path, folder: Path, options: argparse.Namespace) -> tuple[dict, Cache]:
    records, root = read_records(images)
    plain_loop(pipe, [root / record.file for record in records[:4]])  # the first passes are slower
    plain, cached, encoding = Counter(), Counter(), 0.0
    for number in range(ROUNDS):
        part = records[number::ROUNDS]
        write_manifest(part, images / f"{number}.jsonl")
        with timed(plain):
            plain_loop(pipe, [root / record.file for record in part])
        with timed(plain, also="text "):
            for record in part:
                for caption in record.captions.values():
                    family_of(pipe).text.encode(pipe, [caption])
        with timed(cached):
            report = make_cache(pipe, images / f"{number}.jsonl", folder / f"{number}", size=options.size)
        encoding += report.encoding_seconds
    report = make_cache(pipe, images, folder / "full", size=options.size)
    with timed(again := Counter()):
        make_cache(pipe, images, folder / "full", size=options.size)
    plain_cpu = plain["cpu"] + plain["text cpu"]
    return {
        "plain_images_per_second": round(len(records) / plain["wall"], 2),
        "images_per_second": round(len(records) / encoding, 2),
        "share_of_plain": round(plain["wall"] / encoding, 2),
        "plain_cpu_seconds": round(plain_cpu, 2),
        "cpu_seconds": round(cached["cpu"], 2),
        "times_the_plain_cpu_seconds": round(cached["cpu"] / plain_cpu, 3),
        "more_cpu_milliseconds_an_image": round(1000 * (cached["cpu"] - plain_cpu) / len(records), 1),
        "cpu_seconds_to_read_and_check_all": round(again["cpu"], 2),
        "captions": sum(len(record.captions) for record in records),
        "bytes_an_image": report.num_bytes // len(records),
    }, report.cache


@torch.no_grad()
def plain_loop(pipe: Any, files: list[Path]) -> list[tuple[Tensor, Tensor]]:
    found = []
    for file in files:
        pixels = torch.from_numpy(np.asarray(Image.open(file).convert("RGB"), np.float32) / 127.5 - 1)
        distribution = pipe.vae.encode(pixels.permute(2, 0, 1)[None]).latent_dist
        found.append((distribution.mean, distribution.std))
    return found


# --- loading -----------------------------------------------------------------------------------------------


def measure_loading(made: Cache, folder: Path, options: argparse.Namespace) -> dict:
    data = CachedDataset((Source(cache=made, entries=made.entries),))
    needed = BATCH / step_seconds(made, folder, options)
    rates = {
        f"samples_per_second_{num}_workers": rate(data, num, 4 * options.images // BATCH) for num in (0, 2)
    }
    large = large_cache(folder / "large")
    stream = rate(CachedDataset((Source(cache=large, entries=large.entries),)), 0, 8)
    return {
        "training_samples_per_second": round(needed, 2),
        **rates,
        "times_the_need": round(rates["samples_per_second_0_workers"] / needed, 1),
        "samples_per_second_of_flux_at_4096_px": stream,
        "gigabytes_per_second_at_4096_px": round(stream * num_bytes({**LARGE, **TEXT}) / 1e9, 2),
    }


def rate(data: CachedDataset, num_workers: int, num_batches: int) -> float:
    started = time.perf_counter()
    for _ in data.stream(BATCH, seed=0, caption_mix=0.2, stop=num_batches, num_workers=num_workers):
        pass
    return round(num_batches * BATCH / (time.perf_counter() - started), 1)


def step_seconds(made: Cache, folder: Path, options: argparse.Namespace) -> float:
    recipe = Recipe(
        model="mini",
        data=str(made.path),
        out=str(folder / "run"),
        size=options.size,
        adapter=Lora(rank=4),
        steps=options.steps,
        batch_size=BATCH,
        optimizer="adamw",
        lr=1e-4,
        base_dtype="fp32",
        gradient_checkpointing=False,
        checkpoint_every=0,
        loggers=(),
    )
    train(mini.pipeline(), recipe)
    return statistics.median(row["seconds"] for row in read_metrics(folder / "run" / "metrics.jsonl"))


def large_cache(folder: Path) -> Cache:
    """Eight entries as FLUX.1 has them at 4096 px in bf16."""
    store = Folder(folder)
    (folder / "entries").mkdir(parents=True)
    entries = []
    for number in range(8):
        record = Record(
            id=f"{number:064x}",
            file="",
            size=(4096, 4096),
            captions={"original": "", "detailed": ""},
            source="",
        )
        entry = Entry(
            record=record, bucket=(4096, 4096), keys=dict.fromkeys(("latents", *record.captions), "key")
        )
        for part in entry.keys:
            shapes = LARGE if part == "latents" else TEXT
            tensors = {name: torch.rand(shape).bfloat16() for name, shape in shapes.items()}
            store.write_entry(part_name(record.id, part), serialized(tensors, key="key"))
        entries.append(entry)
    about = {"identity": {}, "encoding": "exact", "form": "full", "source": ""}
    return Cache(store=store, size=4096, entries=tuple(entries), **about)


# --- storing -----------------------------------------------------------------------------------------------


def measure_storing(pipe: Any, made: Cache, images: Path, folder: Path, options: argparse.Namespace) -> dict:
    report = make_cache(pipe, images, folder / "small", size=options.size, form="small")
    samples = [made.load(entry) for entry in made.entries[:8]]
    true_tokens = [num_tokens(pipe, entry) for entry in made.entries[:8]]
    rounded = [in_small(sample) for sample in samples]
    shared = [with_std(sample, shared_std(sample)) for sample in samples]
    trimmed = [trim(sample, num) for sample, num in zip(samples, true_tokens, strict=True)]
    return {
        "bytes_an_image_small": report.num_bytes // len(made.entries),
        "flux_megabytes_an_image": {side: flux_megabytes(side) for side in (1024, 2048, 4096)},
        "small_std_relative_error": mean_error(samples, rounded, lambda s: s.posterior.std),
        "small_text_relative_error": mean_error(samples, rounded, lambda s: s.text["prompt_embeds"]),
        "shared_std_relative_error": mean_error(samples, shared, lambda s: s.posterior.std),
        "std_of_the_posterior": float(f"{mean([s.posterior.std.mean() for s in samples]):.2e}"),
        "velocity_change_small": velocity_change(pipe, samples, rounded),
        "velocity_change_shared_std": velocity_change(pipe, samples, shared),
        "velocity_change_trimmed_text": velocity_change(pipe, samples, trimmed),
        "velocity_change_bf16_text": velocity_change(pipe, samples, [in_bf16(s) for s in samples]),
        "tokens_of_a_caption": round(statistics.mean(true_tokens), 1),
    }


def flux_megabytes(side: int) -> dict[str, float]:
    """Of FLUX.1 in bf16 with two captions, by shape."""
    latents = (16, side // 8, side // 8)
    wide = {"mean": latents, "std": latents}
    full = num_bytes(wide) + 2 * num_bytes(TEXT)
    held = {name: torch.empty(shape, dtype=torch.bfloat16) for name, shape in {**wide, **TEXT}.items()}
    coded = {name: tensor.nbytes for name, tensor in small({n: t.fill_(1) for n, t in held.items()}).items()}
    text = sum(size for name, size in coded.items() if "prompt" in name)
    return {"full": round(full / 1e6, 2), "small": round((sum(coded.values()) + text) / 1e6, 2)}


def num_bytes(shapes: dict[str, tuple[int, ...]]) -> int:
    return sum(2 * int(np.prod(shape)) for shape in shapes.values())


def in_small(sample: Sample) -> Sample:
    held = small({"mean": sample.posterior.mean, "std": sample.posterior.std})
    posterior = Posterior(**restored(held))
    return Sample(id="", posterior=posterior, text=restored(small(sample.text)))


def in_bf16(sample: Sample) -> Sample:
    text = {name: tensor.bfloat16().float() for name, tensor in sample.text.items()}
    return Sample(id="", posterior=sample.posterior, text=text)


def with_std(sample: Sample, std: Tensor) -> Sample:
    return Sample(id="", posterior=Posterior(mean=sample.posterior.mean, std=std), text=sample.text)


def shared_std(sample: Sample) -> Tensor:
    std = sample.posterior.std
    return std.log().mean(dim=(1, 2), keepdim=True).exp().expand_as(std)


def trim(sample: Sample, num: int) -> Sample:
    """The caption's own tokens, and for each that was padded the mean of the padding."""
    tokens = sample.text["prompt_embeds"].clone()
    if num < len(tokens):
        tokens[num:] = tokens[num:].mean(dim=0)
    return Sample(id="", posterior=sample.posterior, text={**sample.text, "prompt_embeds": tokens})


def num_tokens(pipe: Any, entry: Entry) -> int:
    limit = pipe.tokenizer_2.model_max_length
    return min(len(pipe.tokenizer_2(entry.record.captions["detailed"]).input_ids), limit)


def mean_error(samples: list[Sample], others: list[Sample], of: Callable[[Sample], Tensor]) -> float:
    pairs = [(of(first).float(), of(second).float()) for first, second in zip(samples, others, strict=True)]
    return float(f"{mean([(after - before).norm() / before.norm() for before, after in pairs]):.2e}")


def mean(values: list[Tensor]) -> float:
    return float(torch.stack(values).mean())


@torch.no_grad()
def velocity_change(pipe: Any, samples: list[Sample], others: list[Sample]) -> float:
    """Of the velocity at sigma 0.5 with the same noise: relative, in the mean over samples."""
    changes = []
    for number, (first, second) in enumerate(zip(samples, others, strict=True)):
        before, after = (velocity(pipe, sample, number) for sample in (first, second))
        changes.append((after - before).norm() / before.norm())
    return float(f"{mean(changes):.2e}")


def velocity(pipe: Any, sample: Sample, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    mean = sample.posterior.mean
    of_posterior, noise = (torch.randn(mean.shape, generator=generator) for _ in range(2))
    noisy = 0.5 * sample.posterior.sample(of_posterior) + 0.5 * noise
    text = {name: tensor[None].float() for name, tensor in sample.text.items()}
    return family_of(pipe).calls.velocity(
        pipe.transformer, noisy[None], sigma=torch.tensor([0.5]), embeddings=text, guidance=1.0
    )


# --- time --------------------------------------------------------------------------------------------------


@contextmanager
def timed(taken: Counter[str], *, also: str = "") -> Iterator[None]:
    """Add the seconds that the block takes to `taken`: "wall" and "cpu", or under `also` before these names."""
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    taken[f"{also}wall"] += time.perf_counter() - wall
    taken[f"{also}cpu"] += time.process_time() - cpu


if __name__ == "__main__":
    main()

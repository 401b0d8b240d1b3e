"""From an empty folder to a large picture of FLUX.1-dev, by the commands and scripts that a user runs.

Real are the model's name, layout and blocks (`flux_dev`), the teacher's and the captioner's servers on loopback, the
pixel sizes of all pictures, both scripts, and one and two processes. Smaller than on a GPU is what the settings say:
one step of one or two images, one denoising step, and the sizes trained at, `REHEARSAL_2K` and `REHEARSAL_4K` in px.
What
was typed and printed lies in `transcript.txt`. `make rehearsal` runs it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from diffusers import FluxPipeline
from flux_dev import NAME, save_flux_dev
from road import ROOT, ULTRA, Road, Ultra, described, picture, running, serving, size_of
from safetensors.torch import load_file

from urae.adapters import Adapter
from urae.data.pixels import cover_scale, training_bucket

pytestmark = pytest.mark.slow

SIZE_2K = int(os.environ.get("REHEARSAL_2K", 1152))
SIZE_4K = int(os.environ.get("REHEARSAL_4K", 1152))

PHOTOGRAPHS = ((4096, 4096), (5504, 3072), (3840, 2160))
"""Pixels. The last is UHD, half of what 4K asks for."""

SCRIPT_2K, SCRIPT_4K = ROOT / "runs" / "flux_2k.sh", ROOT / "runs" / "flux_4k.sh"
BRIEF = ("steps=1", "base_dtype=fp32")
WATCHED = (
    "num_validation=1",
    "validate_every=1",
    "sample_every=1",
    "sample_steps=1",
    "sample_prompts=[a lighthouse]",
)
UNWATCHED = ("num_validation=0", "validate_every=0", "sample_every=0")
DRAWING = ("--", "--steps", "1")


@pytest.fixture(scope="module")
def road(tmp_path_factory) -> Road:
    hub = tmp_path_factory.mktemp("hub")
    save_flux_dev(hub)
    return Road(tmp_path_factory.mktemp("road"), hub)


@pytest.fixture(scope="module")
def collected(road) -> Path:
    """Seven pictures of a teacher, captioned."""
    with running(Ultra) as server:
        settings = ("--set", f"base_url={server.url}", "--set", "poll_every=0.05")
        said = road.go("urae", "data", "collect", "data/2k", "--num", 7, *settings, "--yes")
    assert "spent: 0.42" in said
    with serving(described) as (url, _):
        road.go("urae", "data", "caption", "data/2k", "--model", "toy", "--base-url", url, "--yes")
    return road.folder / "data" / "2k"


@pytest.fixture(scope="module")
def photographs(road) -> Path:
    """What a user has: pictures with captions, at 4K and a little below."""
    (road.folder / "photos").mkdir()
    for number, size in enumerate(PHOTOGRAPHS):
        picture(size, seed=number).save(road.folder / "photos" / f"{number}.png", compress_level=1)
        (road.folder / "photos" / f"{number}.txt").write_text(f"harbour number {number} in the fog")
    words = ("urae", "data", "import", "photos", "--out", "data/4k", "--size", 4096, "--licence", "CC0-1.0")
    assert "took 2 of 3 images" in road.go(*words)
    with serving(described) as (url, _):
        road.go("urae", "data", "caption", "data/4k", "--model", "toy", "--base-url", url, "--yes")
    return road.folder / "data" / "4k"


@pytest.fixture(scope="module")
def adapted_2k(road, collected) -> Path:
    """The run of the first script by one process."""
    before = sorted(collected.rglob("*"))
    said = road.go(SCRIPT_2K, "data/2k", 1, f"size={SIZE_2K}", "batch_size=1", *BRIEF, *WATCHED, *DRAWING)
    assert f"6 images at {SIZE_2K} px, 6 of them with two captions" in said
    assert sorted(collected.rglob("*")) == before
    return road.folder / "out" / "flux_2k"


def test_every_picture_that_was_paid_is_captioned_and_can_be_trained_on(collected):
    records = [json.loads(line) for line in (collected / "manifest.jsonl").read_text().splitlines()]
    assert {tuple(record["size"]) for record in records} <= set(ULTRA.values())
    assert [set(record["captions"]) for record in records] == [{"original", "detailed"}] * 7
    assert all(cover_scale(size, training_bucket(size, 2048)) <= 1 for size in ULTRA.values())


def test_the_2k_adapter_is_a_plain_lora_and_draws(road, adapted_2k):
    rows = [json.loads(line) for line in (adapted_2k / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "loss" in row] == [1]
    assert [size_of(file) for file in (adapted_2k / "images").glob("*.png")] == [(SIZE_2K, SIZE_2K)]
    assert {size_of(file)[1] for file in (adapted_2k / "samples").glob("*.png")} == {SIZE_2K}
    snapshot = next(road.hub.glob("*/snapshots/*"))
    pipe = FluxPipeline.from_pretrained(snapshot)
    pipe.load_lora_weights(adapted_2k / "adapter.safetensors")
    assert (
        sum(name.endswith("lora_A.default_0.weight") for name, _ in pipe.transformer.named_parameters())
        == 190
    )


def test_a_finished_script_does_nothing_twice(road, adapted_2k):
    files = {file: file.stat().st_mtime_ns for file in road.folder.glob("data/2k.cache/**/*.safetensors")}
    adapter = (adapted_2k / "adapter.safetensors").read_bytes()
    said = road.go(SCRIPT_2K, "data/2k/", 1, f"size={SIZE_2K}", "batch_size=1", *BRIEF, *WATCHED, *DRAWING)
    assert "going on after step 1" in said
    assert "1 of 1 pictures are finished already" in said
    assert {file: file.stat().st_mtime_ns for file in files} == files
    assert (adapted_2k / "adapter.safetensors").read_bytes() == adapter


def test_two_processes_train_the_same_2k_adapter(road, collected):
    """At 512 px, whatever the rest is rehearsed at."""
    common = ("size=512", "batch_size=2", *BRIEF, *UNWATCHED)
    for gpus in (1, 2):
        road.go(SCRIPT_2K, "data/2k", gpus, *common, f"out=out/by_{gpus}", *DRAWING)
    one, two = (load_file(road.folder / f"out/by_{gpus}/adapter.safetensors") for gpus in (1, 2))
    assert max(float((one[name] - two[name]).abs().max()) for name in one) < 1e-5
    assert {size_of(file) for file in road.folder.glob("out/by_*/images/*.png")} == {(512, 512)}


@pytest.mark.parametrize("gpus", [1, 2])
def test_from_the_2k_adapter_to_a_large_picture(road, photographs, adapted_2k, gpus):
    """What the guide says, `data cache` and then the script, under another name of the same data."""
    road.go("urae", "data", "cache", "data/4k/manifest.jsonl", "--size", SIZE_4K, "--model", NAME)
    out = "out/flux_4k" if gpus == 1 else "out/two_4k"
    settings = (f"size={SIZE_4K}", f"batch_size={gpus}", "gradient_checkpointing=attention", f"out={out}")
    said = road.go(SCRIPT_4K, "data/4k", gpus, *settings, *BRIEF, *UNWATCHED, *DRAWING)
    assert f"2 images at {SIZE_4K} px" in said
    assert len(list((road.folder / "data" / "4k.cache").iterdir())) == 1
    assert sorted(path.name for path in photographs.iterdir() if path.is_dir()) == ["images", "import"]
    assert [size_of(file) for file in (road.folder / out / "images").glob("*.png")] == [(SIZE_4K, SIZE_4K)]
    adapter = Adapter.load(road.folder / out / "adapter.safetensors")
    assert adapter.spec.kind == "minor"

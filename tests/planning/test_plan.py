import math
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from tiny import with_text_encoders, write_images
from urae import mini, recipes
from urae.adapters import Full, Lora, Mica, Minor, attach
from urae.data import cache
from urae.families import open_architecture
from urae.planning import GPUS, Gpu, gpu_named, in_short, plan, refusal, report
from urae.planning.adapter import adapter_size, optimizer_bytes
from urae.planning.compute import trained_by
from urae.planning.disk import adapter_bytes, cache_bytes, checkpoint_bytes
from urae.planning.efficiency import ASSUMED, efficiency_of
from urae.planning.memory import activation_bytes
from urae.training import train
from urae.training.optimizer import make_optimizer, optimizer_state


@pytest.fixture(scope="module")
def at_4k():
    return plan(recipes.flux_4k(), "H200", num_gpus=8, price=3.5)


def test_a_run_that_fits_is_priced(at_4k):
    assert at_4k.fits
    assert at_4k.cost == pytest.approx(8 * 3.5 * sum(at_4k.hours.values()))
    assert at_4k.hours["training"] == pytest.approx(2000 * at_4k.seconds_per_step / 3600)


def test_the_settings_that_make_a_run_fit_are_named():
    asked = plan(recipes.flux_4k(), "H100")
    assert not asked.fits
    assert asked.changes == {"gradient_accumulation": "8"}
    changed = plan(recipes.flux_4k(**asked.changes), "H100")
    assert changed.fits
    assert "training" in refusal(asked)
    assert "it would with gradient_accumulation=8" in refusal(asked)


def test_a_card_that_is_too_small_is_told_apart():
    small = plan(recipes.flux_4k(), Gpu(name="mine", memory=14, tflops=165))
    assert small.best is None
    assert "no setting makes it fit. It fits on" in refusal(small)
    assert set(small.roomy()) >= {"H200", "H100 PCIe", "A100 80GB"}
    assert not {"RTX 4080", "L4"} & set(small.roomy())


@pytest.fixture(scope="module")
def small_4k():
    return plan(recipes.flux_4k(), "RTX 4090")


@pytest.fixture(scope="module")
def small_2k():
    return plan(recipes.flux_2k(gradient_accumulation=8), "RTX 4090", num_images=3000)


def test_the_host_stands_in_where_nothing_else_fits(small_4k):
    """The 4K recipe in 24 GB: activations on the host, and most weights."""
    assert small_4k.best.uses_host
    assert not any(option.fits for option in small_4k.options if not option.uses_host)
    assert small_4k.changes["offload_activations"] == "true"
    assert small_4k.changes["swap_blocks"] == "40"
    changed = plan(recipes.flux_4k(**small_4k.changes), "RTX 4090").asked
    assert changed.fits
    assert changed == small_4k.best
    assert changed.host > 40e9
    assert "swap_blocks=40 (" in report(small_4k)


def test_of_ways_that_are_as_fast_that_which_needs_least_of_the_host_comes_first(small_2k):
    fastest = [
        option for option in small_2k.options if option.fits and option.seconds == small_2k.best.seconds
    ]
    assert len(fastest) > 1
    assert small_2k.best.locked == min(option.locked for option in fastest)


def test_a_plan_says_in_one_line_what_it_comes_to(small_2k):
    """Hours of the way that is advised, not of the recipe as it is; the disk of all images."""
    (line,) = [line for line in report(small_2k).splitlines() if line.startswith("in short: ")]
    assert line == in_short(small_2k)
    slower = small_2k.seconds_per_step / small_2k.best.seconds
    assert small_2k.best_hours == pytest.approx(
        small_2k.hours["training"] / slower + small_2k.hours["validation"] + small_2k.hours["samples"]
    )
    assert f"in short: {small_2k.best_hours:.0f} hours" in line
    assert f"with {' '.join(f'{key}={value}' for key, value in small_2k.changes.items())}, " in line
    assert f"{small_2k.best.locked / 1e9:.0f} GB of host memory" in line
    assert f"{small_2k.disk_bytes / 1e9:.0f} GB of disk for 3,000 images" in line
    assert small_2k.disk_bytes > 3000 * small_2k.disk["cache"]


def test_a_machine_with_little_memory_takes_another_way_or_none(small_2k):
    enough = (small_2k.best.locked - 1) / 2**30
    recipe = small_2k.asked.recipe
    less = plan(recipe, "RTX 4090", host_memory=enough)
    assert less.best.locked <= enough * 2**30
    assert less.best != small_2k.best
    none = plan(small_2k.best.recipe, "RTX 4090", host_memory=1)
    assert not none.fits
    assert "GB of the host's memory and there are 1.1 GB" in refusal(none)
    assert none.best.recipe.base_weights == "int8"  # the only way that leaves nothing to the host


def test_drawing_is_planned_as_generate_does_it(small_2k, at_4k):
    """In 24 GiB the whole transformer has no room, and rounded to int8 it has; an H200 takes all parts at once."""
    assert small_2k.drawing.options == "--base-weights int8"
    assert (small_2k.drawing.memory.offload, small_2k.drawing.fits) == ("model", True)
    assert (at_4k.drawing.options, at_4k.drawing.memory.offload) == ("", "none")
    assert at_4k.drawing.seconds == pytest.approx(
        at_4k.hours["samples"] * 3600 / 5
    )  # five times two samples, by two processes at a time
    assert "drawing 2048x2048 in 28 steps: about" in report(small_2k)


def test_as_few_blocks_are_swapped_as_will_do():
    found = plan(recipes.flux_2k(batch_size=1, sample_every=0), "RTX 4080")
    assert found.best.fits
    one_less = replace(found.best.recipe, swap_blocks=found.best.recipe.swap_blocks - 1)
    assert not plan(one_less, "RTX 4080").fits


def test_a_gpu_with_room_is_not_offered_the_host(at_4k):
    assert at_4k.best is not None
    assert not at_4k.best.uses_host
    assert "swap_blocks" not in report(at_4k)
    assert "offload" not in report(at_4k)


def test_copies_take_time_only_where_the_computation_is_shorter(small_4k):
    gpu, kept = gpu_named("RTX 4090"), replace(small_4k.best.recipe, swap_blocks=0)
    assert small_4k.best.seconds == plan(kept, gpu).seconds_per_step
    narrow = replace(gpu, name="narrow", link=gpu.link / 100)
    waiting = plan(small_4k.best.recipe, narrow).asked
    # 1.1 TB a step, at 0.8 of 0.3 GB/s; activations leave in a forward pass, while weights come.
    assert waiting.seconds > 0.75 * waiting.moved / (0.8 * narrow.link * 1e9) > small_4k.best.seconds


def test_compiled_blocks_cannot_be_swapped_so_the_plan_says_compile_false():
    compiled = recipes.flux_2k(compile=True, batch_size=1, sample_every=0)
    assert plan(compiled, "RTX 4080").changes["compile"] == "false"


def test_a_base_in_fewer_bits_is_offered_where_the_gpu_alone_has_no_room():
    found = plan(recipes.flux_2k(batch_size=1, sample_every=0), "RTX 4090")
    rounded = {option.recipe.base_weights for option in found.options if not option.uses_host and option.fits}
    assert rounded == {"int8"}  # it suffices, so nothing is rounded more
    assert found.best.recipe.base_weights == "as_loaded"  # what is exact comes first
    assert "base_weights=int8" in report(found)
    roomy = plan(recipes.flux_2k(batch_size=1, sample_every=0), "H200")
    assert {option.recipe.base_weights for option in roomy.options} == {"as_loaded"}


def test_a_base_in_fewer_bits_is_advised_where_nothing_else_helps():
    recipe, gpu = recipes.flux_4k(batch_size=1, sample_every=0), Gpu(name="mine", memory=16, tflops=165)
    found = plan(recipe, gpu)
    assert not any(option.fits for option in found.options if option.recipe.base_weights == "as_loaded")
    assert found.changes["base_weights"] == found.best.recipe.base_weights
    assert plan(found.best.recipe, gpu).fits


def test_a_full_adapter_is_not_offered_a_rounded_base():
    found = plan(recipes.flux_2k(batch_size=1, sample_every=0, adapter=Full()), "RTX 4090")
    assert {option.recipe.base_weights for option in found.options} == {"as_loaded"}


def test_what_is_faster_and_fits_is_said():
    slow = plan(recipes.flux_2k(gradient_accumulation=8), "H200")
    assert slow.changes == {"gradient_checkpointing": "false"}
    assert slow.best.seconds < 0.8 * slow.seconds_per_step
    assert "faster with gradient_checkpointing=false" in report(slow)


def test_samples_are_left_out_only_where_nothing_else_helps():
    # A VAE's decoder needs more for a large image than one step on one image.
    asked = plan(recipes.mini_4x(), "L4").asked.phases
    step = plan(recipes.mini_4x(gradient_checkpointing="full", gradient_accumulation=2), "L4").asked.phases
    assert step["training"] < asked["samples"]
    between = Gpu(
        name="mine", memory=0.6 + (step["training"] + asked["samples"]) / 2 / 0.95 / 2**30, tflops=1
    )
    assert plan(recipes.mini_4x(), between).changes["sample_every"] == "0"
    assert plan(recipes.mini_4x(), "L4").fits


def test_the_published_cost_of_4k_is_of_this_order(at_4k):
    """2,000 steps of batch 8 in about a day on 8 H100 (paper, Sec. 4)."""
    assert 0.5 < plan(recipes.flux_4k(), "H100", num_gpus=8).hours["training"] / 24 < 2


def test_time_falls_with_gpus_and_rises_with_size(at_4k):
    alone = plan(recipes.flux_4k(), "H200")
    assert alone.seconds_per_step == pytest.approx(8 * at_4k.seconds_per_step)
    assert plan(recipes.flux_2k(), "H200").seconds_per_step < alone.seconds_per_step / 7


def test_a_batch_that_cannot_be_shared_is_refused():
    with pytest.raises(
        ValueError, match=r"batch_size is 8: expected a multiple of .* = 3 x 1, such as batch_size=9"
    ):
        plan(recipes.flux_2k(), "H200", num_gpus=3)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("h200", "H200"),
        ("RTX4090", "RTX 4090"),
        ("4090", "RTX 4090"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("a100-80gb", "A100 80GB"),
        ("NVIDIA A100-SXM4-40GB", "A100 40GB"),
        ("H100 PCIe", "H100 PCIe"),
        ("h100 80GB HBM3", "H100"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("A100-PCIE-80GB", "A100 80GB"),
        ("NVIDIA A100 80GB PCIe", "A100 80GB"),
        ("a100 40 GB", "A100 40GB"),
        ("a100-40", "A100 40GB"),
        ("6000 Ada", "RTX 6000 Ada"),
        ("NVIDIA RTX 6000 Ada Generation", "RTX 6000 Ada"),
        ("a6000", "RTX A6000"),
    ],
)
def test_gpus_are_found_however_they_are_written(name, found):
    assert gpu_named(name) is GPUS[found]


def test_every_gpu_is_found_by_its_own_name():
    assert [gpu_named(name).name for name in GPUS] == list(GPUS)


def test_a_name_of_two_gpus_is_asked_about():
    with pytest.raises(ValueError, match="GPU 'a100' is A100 80GB or A100 40GB: say which"):
        gpu_named("a100")


@pytest.mark.parametrize(
    "name",
    ["RTX 4090 48GB", "NVIDIA H100 NVL", "NVIDIA GeForce RTX 4090 Laptop GPU", "NVIDIA L40", "GTX 980", ""],
)
def test_another_gpu_is_not_taken_for_a_known_one(name):
    """A card with twice the memory, or half the rate, makes another plan."""
    with pytest.raises(ValueError, match="is unknown: expected one of"):
        gpu_named(name)


def test_an_unknown_gpu_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match="GPU 'H300' is unknown: expected one of B200, H200"):
        gpu_named("H300")


def test_efficiency_is_measured_where_the_benchmark_ran(tmp_path):
    file = tmp_path / "gpu.json"
    rows = [
        {"what": "train step", "way": "urae", "size": size, "efficiency": size / 1e4} for size in (1024, 4096)
    ]
    file.write_text(f'{{"gpu": "H200", "date": "2026-01-02T03:04", "rows": {rows}}}'.replace("'", '"'))
    assert efficiency_of(gpu_named("H200"), 2048, measured=file).share == 0.1024
    assert efficiency_of(gpu_named("H100"), 2048, measured=file).share == ASSUMED


def test_the_assumed_efficiency_is_that_of_the_published_five_minutes(at_4k):
    calls = at_4k.hours["samples"] * 3600  # at 37% of the same 989 TFLOP/s
    images = 2000 // 500 + 1  # two processes draw one each, at the same time
    assert calls / images == pytest.approx(300, rel=0.03)


# --- what is written, against what is really written ---------------------------------------------------------


@pytest.fixture
def pipe(pipe):
    return with_text_encoders(pipe)


def test_a_cache_is_as_large_as_said(pipe, tmp_path):
    images = write_images(tmp_path / "images", [(128, 128)] * 2)
    made = cache(pipe, images, tmp_path / "cache", size=128)
    files = list((made.path / "entries").iterdir())
    assert sum(file.stat().st_size for file in files) / 2 == pytest.approx(cache_bytes(pipe, 128), rel=0.05)


@pytest.mark.parametrize(
    ("spec", "optimizer"), [(Lora(rank=8), "prodigy"), (Minor(rank=8), "prodigy"), (Lora(rank=8), "adamw")]
)
def test_checkpoint_and_adapter_are_as_large_as_said(pipe, tmp_path, spec, optimizer):
    images = write_images(tmp_path / "images", [(128, 128)] * 2)
    recipe = recipes.mini_2x(
        data=str(images),
        out=str(tmp_path / "run"),
        size=128,
        steps=1,
        batch_size=2,
        adapter=spec,
        num_validation=0,
        validate_every=0,
        sample_every=0,
        optimizer=optimizer,
        loggers=(),
        ema=0.5,
    )
    train(pipe, recipe)
    size = adapter_size(pipe.transformer, spec)
    folder = tmp_path / "run" / "checkpoints" / "step-000001"
    tensors = [t for file in folder.glob("*.safetensors") for t in load_file(file).values()]
    stored = sum(tensor.nbytes for tensor in tensors)
    assert stored == pytest.approx(checkpoint_bytes(size, recipe), rel=0.01)
    exported = load_file(tmp_path / "run" / "adapter.safetensors").values()
    assert sum(tensor.nbytes for tensor in exported) == adapter_bytes(size)


@pytest.mark.parametrize("spec", [Lora(rank=4), Minor(rank=4), Mica(rank=4)])
@pytest.mark.parametrize("optimizer", ["adamw", "prodigy"])
def test_optimizer_state_is_as_large_as_said(transformer, spec, optimizer):
    attached = attach(transformer, spec)
    made = make_optimizer(attached.parameters(), replace(recipes.mini_2x(), optimizer=optimizer))
    for parameter in attached.parameters():
        parameter.grad = torch.ones_like(parameter)
    made.step()
    tensors, _ = optimizer_state(made)
    size = adapter_size(transformer, spec)
    assert size.trained == sum(parameter.numel() for parameter in attached.parameters())
    stored = sum(tensor.nbytes for tensor in tensors.values() if tensor.dim())
    assert stored == optimizer_bytes(size, optimizer)


def test_the_architecture_is_that_of_the_loaded_model():
    pipe = mini.pipeline()
    found = open_architecture("mini", dtype=torch.float32)
    for name in ("transformer", "vae"):
        shapes = [
            {key: value.shape for key, value in model.state_dict().items()}
            for model in (getattr(pipe, name), getattr(found, name))
        ]
        assert shapes[0] == shapes[1]
    encoders = (pipe.text_encoder, pipe.text_encoder_2)
    assert found.num_encoder_values == sum(p.numel() for encoder in encoders for p in encoder.parameters())
    assert found.tokenizer_2.model_max_length == pipe.tokenizer_2.model_max_length


def test_flux_has_twelve_billion_weights():
    found = open_architecture("black-forest-labs/FLUX.1-dev", dtype=torch.bfloat16)
    assert sum(p.numel() for p in found.transformer.parameters()) == 11_901_408_320


def test_gpus_that_share_tokens_keep_a_part_of_the_activations_and_take_no_longer():
    recipe = replace(recipes.flux_4k(), sample_every=0, batch_size=4)
    apart, together = (
        plan(replace(recipe, context_parallel=num), "H100", num_gpus=4).asked for num in (1, 4)
    )
    architecture = open_architecture(recipe.model, dtype=torch.bfloat16)
    trained = trained_by(architecture.transformer, recipe.adapter)
    whole, part = (
        activation_bytes(architecture, trained, replace(recipe, context_parallel=num), num_images=1)
        for num in (1, 4)
    )
    assert part == pytest.approx(whole / 4, rel=1e-6)
    # One image at a time on each GPU, or four on all of them, a quarter of each.
    assert together.phases["training"] == pytest.approx(apart.phases["training"], rel=1e-6)
    assert together.seconds == pytest.approx(apart.seconds)
    with pytest.raises(ValueError, match="context_parallel is 3 and 4 processes"):
        plan(replace(recipe, context_parallel=3), "H100", num_gpus=4)
    with pytest.raises(
        ValueError,
        match="expected a multiple of groups of 2 processes or GPUs x gradient_accumulation = 2 x 1",
    ):
        plan(replace(recipe, batch_size=1, context_parallel=2), "H100", num_gpus=4)


@pytest.mark.parametrize(("memory", "tflops"), [(math.inf, 1), (24, math.inf), (math.nan, 1), (0, 1)])
def test_a_gpu_of_no_size_is_none(memory, tflops):
    with pytest.raises(ValueError, match="expected all finite and above 0"):
        Gpu(name="mine", memory=memory, tflops=tflops)

"""Which plan is chosen, and that it leaves nothing behind."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from urae.generation import MemoryPlan, generate, plan_memory
from urae.generation.memory import MemoryNeed, choose_plan, choose_tiling, memory_need

GB = 10**9
FLUX_AT_4K = MemoryNeed(
    weights=34 * GB, largest_part=24 * GB, denoise=9 * GB, decode=26 * GB, decode_tiled=2 * GB
)


@pytest.mark.parametrize(
    ("free", "offload", "tile_vae"),
    [
        (80, "none", False),
        (65, "model", False),
        (52, "none", True),
        (45, "model", True),
        (24, "sequential", True),
        (4, "sequential", True),
    ],
)
def test_the_exact_and_fast_plan_that_fits_is_chosen(free, offload, tile_vae):
    plan = choose_plan(FLUX_AT_4K, free=free * GB, can_tile=True)
    assert (plan.device, plan.offload, plan.tile_vae) == ("cuda", offload, tile_vae)


def test_what_cannot_be_tiled_is_not():
    assert not choose_plan(FLUX_AT_4K, free=24 * GB, can_tile=False).tile_vae
    assert not choose_tiling(FLUX_AT_4K, free=10 * GB, can_tile=False, is_offloaded=False).tile_vae


def test_a_pipeline_that_is_placed_is_tiled_only_where_it_must_be():
    # on the device: activations alone; offloaded: the largest part is still to come
    for free, is_offloaded, tile_vae in [
        (31, False, False),
        (30, False, True),
        (60, True, False),
        (58, True, True),
    ]:
        plan = choose_tiling(FLUX_AT_4K, free=free * GB, can_tile=True, is_offloaded=is_offloaded)
        assert (plan.offload, plan.tile_vae) == ("unchanged", tile_vae)


def test_the_reason_holds_the_numbers():
    assert str(choose_plan(FLUX_AT_4K, free=80 * GB, can_tile=True)) == (
        "whole pipeline on cuda: needs about 60.0 GB of 80.0 GB free"
    )
    assert str(choose_plan(FLUX_AT_4K, free=4 * GB, can_tile=True)) == (
        "one layer at a time on cuda, VAE in tiles: needs about 9.0 GB but there are only 4.0 GB free"
    )


def test_needs_follow_weights_tokens_and_pixels(speaking):
    native, large = (memory_need(speaking, (side, side)) for side in (128, 512))
    parts = [speaking.transformer, speaking.vae, speaking.text_encoder, speaking.text_encoder_2]
    bytes_of = [4 * sum(p.numel() for p in part.parameters()) for part in parts]
    assert native.weights == pytest.approx(sum(bytes_of), rel=0.01)
    assert native.largest_part == pytest.approx(max(bytes_of), rel=0.01)
    assert large.denoise / native.denoise == (1024 + 32) / (64 + 32)
    assert native.decode == native.decode_tiled
    assert large.decode == 16 * native.decode
    # one tile and the picture itself, twice in fp32
    assert large.decode_tiled - native.decode_tiled == (512**2 - 128**2) * 2 * 3 * 4


@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without CUDA")
def test_without_cuda_everything_stays(speaking):
    plan = plan_memory(speaking, (512, 512))
    assert str(plan) == "as it is on cpu: no CUDA device here"


def test_tiles_change_where_they_meet_alone_and_are_turned_off_again(speaking):
    settings = {"size": (256, 128), "steps": 1}
    whole = np.asarray(generate(speaking, "a tiger", **settings), dtype=int)
    plan = MemoryPlan(device="cpu", offload="unchanged", tile_vae=True)
    tiled = np.asarray(generate(speaking, "a tiger", **settings, memory=plan), dtype=int)
    assert not np.array_equal(whole, tiled)
    assert not speaking.vae.use_tiling
    assert np.array_equal(whole, np.asarray(generate(speaking, "a tiger", **settings), dtype=int))


def test_tiling_that_was_on_stays_on(speaking):
    speaking.vae.enable_tiling()
    try:
        with MemoryPlan(device="cpu", offload="unchanged", tile_vae=True).on(speaking):
            pass
        assert speaking.vae.use_tiling
    finally:
        speaking.vae.disable_tiling()


def test_offload_gives_the_same_pixels_and_goes_away(speaking):
    settings = {"size": (128, 96), "steps": 2}
    plain = generate(speaking, "a tiger", **settings)
    plan = MemoryPlan(device="cpu", offload="model")
    with plan.on(speaking):
        assert all(hasattr(part, "_hf_hook") for part in (speaking.transformer, speaking.vae))
    offloaded = generate(speaking, "a tiger", **settings, memory=plan)
    assert np.array_equal(np.asarray(plain), np.asarray(offloaded))
    assert not any(hasattr(part, "_hf_hook") for part in speaking.components.values())


def test_an_exception_undoes_the_plan_too(speaking):
    def fail():
        with MemoryPlan(device="cpu", offload="model", tile_vae=True).on(speaking):
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail()
    assert not speaking.vae.use_tiling
    assert not hasattr(speaking.transformer, "_hf_hook")


def test_a_second_offload_is_refused(speaking):
    plan = MemoryPlan(device="cpu", offload="model")
    with (
        plan.on(speaking),
        pytest.raises(ValueError, match="offloaded already: use unchanged"),
        plan.on(speaking),
    ):
        pass


def test_unknown_offload_is_refused():
    with pytest.raises(
        ValueError, match="offload is 'half': expected one of unchanged, none, model, sequential"
    ):
        MemoryPlan(device="cpu", offload="half")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("offload", ["none", "model", "sequential"])
def test_on_cuda_each_plan_gives_the_same_picture_and_gives_the_device_back(speaking, offload):
    plan = replace(plan_memory(speaking, (256, 256)), offload=offload)
    settings = {"size": (256, 256), "steps": 2}
    here = np.asarray(generate(speaking, "a tiger", **settings, memory="auto"), dtype=int)
    there = np.asarray(generate(speaking, "a tiger", **settings, memory=plan), dtype=int)
    assert np.abs(here - there).max() <= 2
    assert speaking.device.type == "cpu"

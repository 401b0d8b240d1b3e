"""Which plan is chosen, and that it leaves nothing behind."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate.hooks import ModelHook, add_hook_to_module, remove_hook_from_module
from diffusers import FluxTransformer2DModel

from urae.execution import MemoryPlan, plan_memory, quantised
from urae.execution.memory import MemoryNeed, choose_decode, choose_plan, in_fewer_bits, memory_need
from urae.generation import generate

GB = 10**9
FLUX_AT_4K = MemoryNeed(
    weights=34 * GB,
    largest_part=24 * GB,
    vae=GB // 5,
    denoise=9 * GB,
    decode={"whole": 26 * GB, "strips": 11 * GB, "tiles": 2 * GB},
)
STRIPS_UNKNOWN = replace(FLUX_AT_4K, decode={"whole": 26 * GB, "tiles": 2 * GB})
WHOLE_ALONE = replace(FLUX_AT_4K, decode={"whole": 26 * GB})


@pytest.mark.parametrize(
    ("free", "offload", "decode"),
    [
        (80, "none", "whole"),
        (65, "none", "strips"),
        (52, "model", "whole"),
        (39, "model", "whole"),
        (38, "sequential", "whole"),
        (24, "sequential", "tiles"),
        (4, "sequential", "tiles"),
    ],
)
def test_the_exact_and_fast_plan_that_fits_is_chosen(free, offload, decode):
    plan = choose_plan(FLUX_AT_4K, free=free * GB)
    assert (plan.device, plan.offload, plan.decode) == ("cuda", offload, decode)


def test_without_strips_parts_are_offloaded_before_tiles():
    for free, offload, decode in [
        (65, "model", "whole"),
        (39, "model", "whole"),
        (32, "sequential", "whole"),
    ]:
        plan = choose_plan(STRIPS_UNKNOWN, free=free * GB)
        assert (plan.offload, plan.decode) == (offload, decode)


def test_weights_in_the_way_bring_the_format_in_which_they_are_not():
    """FLUX.1's transformer takes 24 GB in bf16, 12 in fp8 and 6 in nf4; the text encoder takes 10."""
    with torch.device("meta"):
        transformer = FluxTransformer2DModel(guidance_embeds=True).to(torch.bfloat16)
        encoder = torch.nn.Linear(1000, 5 * 10**6, bias=False, dtype=torch.bfloat16)
    pipe = SimpleNamespace(transformer=transformer, components={"t": transformer, "e": encoder, "name": "x"})
    for free, said in [(25, "fp8"), (23, "nf4"), (12, "")]:
        plan = choose_plan(FLUX_AT_4K, free=free * GB)
        assert plan.offload == "sequential"
        hint = in_fewer_bits(pipe, FLUX_AT_4K, plan, free=free * GB)
        assert hint == (
            f"; with base_weights {said} it would be one part at a time, which is much faster" if said else ""
        )
    fits = choose_plan(FLUX_AT_4K, free=80 * GB)
    assert in_fewer_bits(pipe, FLUX_AT_4K, fits, free=80 * GB) == ""


def test_what_is_off_the_device_while_the_vae_decodes_does_not_count_then():
    """FLUX.1 in fp8 on 24 GB: one part at a time, the transformer with its 8 GB and then the VAE in strips."""
    fp8 = replace(FLUX_AT_4K, weights=22 * GB, largest_part=12 * GB, denoise=8 * GB)
    plan = choose_plan(fp8, free=24 * GB)
    assert (plan.offload, plan.decode) == ("model", "strips")
    assert plan.reason == "needs about 20.0 GB of 24.0 GB free"


def test_what_has_one_way_to_decode_takes_it():
    assert choose_plan(WHOLE_ALONE, free=24 * GB).decode == "whole"
    assert choose_decode(WHOLE_ALONE, free=10 * GB, is_offloaded=False).decode == "whole"


def test_a_pipeline_that_is_placed_decodes_the_whole_where_it_can():
    # on the device: activations alone; offloaded: the largest part is still to come
    for free, is_offloaded, decode in [
        (31, False, "whole"),
        (30, False, "strips"),
        (12, False, "tiles"),
        (40, True, "whole"),
        (30, True, "strips"),
        (12, True, "tiles"),
    ]:
        plan = choose_decode(FLUX_AT_4K, free=free * GB, is_offloaded=is_offloaded)
        assert (plan.offload, plan.decode) == ("unchanged", decode)


def test_the_reason_holds_the_numbers():
    assert str(choose_plan(FLUX_AT_4K, free=80 * GB)) == (
        "whole pipeline on cuda: needs about 60.0 GB of 80.0 GB free"
    )
    assert str(choose_plan(FLUX_AT_4K, free=65 * GB)) == (
        "whole pipeline on cuda, VAE in strips: needs about 45.0 GB of 65.0 GB free"
    )
    assert str(choose_plan(FLUX_AT_4K, free=4 * GB)) == (
        "one layer at a time on cuda, VAE in tiles: needs about 9.0 GB but there are only 4.0 GB free"
    )


def test_needs_follow_weights_tokens_and_pixels(speaking):
    native, large = (memory_need(speaking, (side, side)) for side in (128, 512))
    parts = [speaking.transformer, speaking.vae, speaking.text_encoder, speaking.text_encoder_2]
    bytes_of = [4 * sum(p.numel() for p in part.parameters()) for part in parts]
    assert native.weights == pytest.approx(sum(bytes_of), rel=0.01)
    assert native.largest_part == pytest.approx(max(bytes_of), rel=0.01)
    assert large.denoise / native.denoise == (1024 + 32) / (64 + 32)
    # one tile is the native picture, which therefore needs none
    assert (list(native.decode), list(large.decode)) == (["whole", "strips"], ["whole", "strips", "tiles"])
    assert large.decode["whole"] == 16 * native.decode["whole"]
    # one tile, and what there is of the whole picture in fp32
    assert large.decode["tiles"] - native.decode["whole"] == (512**2 - 128**2) * 16 * 4


@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without CUDA")
def test_without_cuda_everything_stays(speaking):
    plan = plan_memory(speaking, (512, 512))
    assert str(plan) == "as it is on cpu: no CUDA device here"


def test_strips_give_the_same_picture(speaking):
    settings = {"size": (256, 192), "steps": 1}
    whole = np.asarray(generate(speaking, "a tiger", **settings), dtype=int)
    plan = MemoryPlan(device="cpu", offload="unchanged", decode="strips")
    strips = generate(speaking, "a tiger", **settings, memory=plan)
    assert np.abs(np.asarray(strips, dtype=int) - whole).max() <= 1
    assert strips.info["memory"] == "as it is on cpu, VAE in strips: as asked"


def test_strips_are_refused_where_layers_come_one_by_one(speaking):
    with pytest.raises(ValueError, match="'strips' with offload 'sequential'.*use tiles or whole"):
        MemoryPlan(device="cpu", offload="sequential", decode="strips")
    plan = MemoryPlan(device="cpu", offload="unchanged", decode="strips")
    add_hook_to_module(speaking.vae.decoder.conv_out, ModelHook())
    try:
        assert "strips" not in memory_need(speaking, (512, 512)).decode
        with pytest.raises(ValueError, match="layers are offloaded one by one: use tiles"), plan.on(speaking):
            pass
    finally:
        remove_hook_from_module(speaking.vae.decoder.conv_out)
    with (
        pytest.raises(ValueError, match="not of Linear: use tiles"),
        plan.on(SimpleNamespace(vae=torch.nn.Linear(1, 1))),
    ):
        pass


def test_tiles_change_where_they_meet_alone_and_are_turned_off_again(speaking):
    settings = {"size": (256, 128), "steps": 1}
    whole = np.asarray(generate(speaking, "a tiger", **settings), dtype=int)
    plan = MemoryPlan(device="cpu", offload="unchanged", decode="tiles")
    tiled = np.asarray(generate(speaking, "a tiger", **settings, memory=plan), dtype=int)
    assert not np.array_equal(whole, tiled)
    assert not speaking.vae.use_tiling
    assert np.array_equal(whole, np.asarray(generate(speaking, "a tiger", **settings), dtype=int))


def test_tiling_that_was_on_stays_on(speaking):
    speaking.vae.enable_tiling()
    try:
        with MemoryPlan(device="cpu", offload="unchanged", decode="tiles").on(speaking):
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
        with MemoryPlan(device="cpu", offload="model", decode="tiles").on(speaking):
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


@pytest.mark.parametrize("offload", ["none", "model", "sequential"])
def test_what_was_quantised_on_the_host_goes_to_no_gpu_that_cannot_multiply(speaking, monkeypatch, offload):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 6))
    with (
        quantised(speaking, "fp8_dynamic"),
        pytest.raises(ValueError, match=r"this one has 8\.6: choose fp8$"),
        MemoryPlan(device="cuda", offload=offload).on(speaking),
    ):
        pass
    assert speaking.device.type == "cpu"


def test_unknown_ways_are_refused():
    with pytest.raises(
        ValueError, match="offload is 'half': expected one of unchanged, none, model, sequential"
    ):
        MemoryPlan(device="cpu", offload="half")
    with pytest.raises(ValueError, match="decode is 'slices': expected one of whole, strips, tiles"):
        MemoryPlan(device="cpu", offload="none", decode="slices")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("offload", ["none", "model", "sequential"])
def test_on_cuda_each_plan_gives_the_same_picture_and_gives_the_device_back(speaking, offload):
    plan = replace(plan_memory(speaking, (256, 256)), offload=offload)
    settings = {"size": (256, 256), "steps": 2}
    here = np.asarray(generate(speaking, "a tiger", **settings, memory="auto"), dtype=int)
    there = np.asarray(generate(speaking, "a tiger", **settings, memory=plan), dtype=int)
    assert np.abs(here - there).max() <= 2
    assert speaking.device.type == "cpu"

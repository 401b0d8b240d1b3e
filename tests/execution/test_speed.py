"""Speed: which kernels run, when compiling pays, and what a picture remembers of it."""

from functools import partial

import numpy as np
import pytest
import torch
from diffusers.hooks import FirstBlockCacheConfig

from urae.execution import FirstBlock, MemoryPlan, plan_speed
from urae.execution.compiling import GAINS
from urae.generation import Sdedit, generate, read_png_metadata, save_png

TIGER = "a flat tiger on a wood background"
HERE = MemoryPlan(device="cpu", offload="unchanged")
GPU = MemoryPlan(device="cuda", offload="none")


def draw(pipe, **settings):
    return generate(pipe, TIGER, **{"size": (64, 64), "steps": 6, **settings})


def same(left, right):
    return np.array_equal(np.asarray(left), np.asarray(right))


@pytest.fixture
def uncompiled(monkeypatch):
    """Compiling takes no time and changes nothing."""
    monkeypatch.setattr(torch, "compile", lambda forward: partial(forward))


# The decision


def test_a_single_picture_on_a_cpu_is_what_it_was(speaking):
    plan = plan_speed(speaking, (256, 256), steps=28, memory=HERE)
    assert (plan.cache, plan.compile) == (None, False)
    assert str(plan).startswith("exact, blocks eager: 28 calls would save about ")
    with plan.on(speaking, (256, 256)) as kernels:
        assert kernels == {}
        assert not any("forward" in vars(block) for block in speaking.transformer.transformer_blocks)


@pytest.mark.parametrize("memory", [HERE, GPU], ids=["cpu", "cuda"])
def test_compiling_is_chosen_where_it_pays(speaking, memory):
    plans = [
        plan_speed(speaking, (512, 512), speed, steps=28, num_images=num, memory=memory)
        for speed, num in (("exact", 100_000), ("exact", 1), ("fast", 100_000))
    ]
    saved = [float(plan.reason.split(" s,")[0].split()[-1]) for plan in plans]
    assert [plan.compile for plan in plans] == [seconds > GAINS[memory.device].to_draw for seconds in saved]
    assert [plan.compile for plan in plans[:2]] == [True, False]
    # fast computes 9 of 28 steps, and compiling saves nothing in the others
    assert saved[2] == pytest.approx(saved[0] * 9 / 28, abs=1)
    assert f"{28 * 100_000} calls would save" in plans[0].reason


def test_where_nothing_is_known_or_no_compiler_is_there_it_stays_eager(speaking, monkeypatch):
    many = {"steps": 28, "num_images": 10**7}
    other = plan_speed(speaking, (512, 512), memory=MemoryPlan(device="mps", offload="none"), **many)
    assert (other.compile, other.reason) == (False, "what compiling gains on mps is not known")
    monkeypatch.setenv("PATH", "")
    plan = plan_speed(speaking, (512, 512), memory=HERE, **many)
    assert (plan.compile, plan.reason) == (False, "there is no C++ compiler")
    with pytest.raises(ValueError, match=r"compile is True where there is no C\+\+ compiler"):
        plan_speed(speaking, (512, 512), compile=True, memory=HERE, **many)


def test_the_users_word_goes_before(speaking):
    asked = plan_speed(speaking, (64, 64), steps=4, compile=True, memory=HERE)
    assert (asked.compile, asked.reason) == (True, "as asked")
    assert not plan_speed(
        speaking, (512, 512), steps=28, num_images=99_999, compile=False, memory=GPU
    ).compile


def test_what_does_not_go_with_compiling_is_said(speaking):
    by_layer = MemoryPlan(device="cuda", offload="sequential")
    plan = plan_speed(speaking, (512, 512), steps=28, num_images=99_999, memory=by_layer)
    assert (plan.compile, plan.reason) == (False, "weights come one layer at a time")
    with pytest.raises(ValueError, match=r"compile is True where weights come one layer at a time"):
        plan_speed(speaking, (512, 512), steps=28, compile=True, memory=by_layer)
    with pytest.raises(ValueError, match="where processes share a picture"):
        plan_speed(speaking, (512, 512), steps=28, compile=True, context_parallel=2, memory=GPU)
    speaking.transformer = torch.compile(speaking.transformer, backend="eager")
    with pytest.raises(ValueError, match="where the transformer is compiled already"):
        plan_speed(speaking, (512, 512), steps=28, compile=True, memory=GPU)


def test_the_plan_says_what_is_computed(speaking):
    plan = partial(plan_speed, speaking, (64, 64), steps=28, memory=HERE)
    assert str(plan("fast")).startswith(
        "taylorseer:interval=4,order=2 (9 of 28 steps computed), blocks eager"
    )
    assert "as many as the picture needs of 28 steps" in str(plan("first-block"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"speed": "magic"}, "speed is 'magic': expected exact, fast or a cache, taylorseer or first-block"),
        ({"speed": 4}, "speed is 4: expected exact, fast or a cache"),
        ({"speed": "fast", "steps": 3}, "has no effect in 3 steps, of which it computes the first 3 in full"),
        ({"speed": FirstBlock(), "steps": 1}, "first-block:threshold=0.12 has no effect in 1 steps"),
        ({"speed": FirstBlock(), "context_parallel": 2}, "would decide differently: take taylorseer"),
    ],
)
def test_what_cannot_be_is_refused(speaking, settings, message):
    with pytest.raises(ValueError, match=message):
        plan_speed(speaking, (64, 64), **{"steps": 8, "memory": HERE, **settings})


def test_a_method_that_does_not_denoise_leaves_nothing_to_speed(small):
    with pytest.raises(ValueError, match="speed has no effect with the esrgan method"):
        draw(small, size=(128, 128), method="esrgan", steps="auto", speed="fast")


# Drawing


def test_native_pictures_are_not_compiled(small, uncompiled):
    block, compiled = small.transformer.transformer_blocks[0], []
    draw(
        small,
        size=(128, 128),
        method=Sdedit(native_steps=2),
        steps=3,
        compile=True,
        on_step=lambda: compiled.append(isinstance(block.forward, partial)),
    )
    assert compiled == [False] * 2 + [True] * 3


@pytest.mark.slow
def test_translated_by_inductor_the_picture_is_the_same_up_to_rounding(small):
    compiled = draw(small, steps=2, compile=True)
    exact = draw(small, steps=2)
    assert np.abs(np.asarray(compiled, dtype=int) - np.asarray(exact, dtype=int)).max() <= 1
    torch.compiler.reset()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("compile", [False, True])
def test_on_cuda_exact_is_the_plain_path_up_to_rounding(speaking, compile):
    plain = draw(speaking)  # fp32
    fast = draw(speaking, compile=compile, memory=GPU)
    assert np.abs(np.asarray(fast, dtype=int) - np.asarray(plain, dtype=int)).mean() < 0.5
    assert fast.info["kernels"].startswith("attention by ")
    assert ("blocks compiled" in fast.info["kernels"]) == compile


def test_a_cache_of_the_owners_stays_and_is_named(small):
    exact = draw(small)
    small.transformer.enable_cache(FirstBlockCacheConfig(threshold=1e9))
    try:
        image = draw(small)
        assert image.info["kernels"] == "blocks left out by a FirstBlockCacheConfig"
        assert not same(image, exact)
        with pytest.raises(
            ValueError, match="compile is True where the transformer's blocks have hooks already"
        ):
            draw(small, compile=True)
        with pytest.raises(
            ValueError, match="second cache on a transformer that has one: call its disable_cache"
        ):
            draw(small, speed="fast")
    finally:
        small.transformer.disable_cache()


# What a picture remembers


def test_a_picture_repeats_itself(small, tmp_path):
    image = draw(small, speed="fast")
    made = read_png_metadata(save_png(image, tmp_path / "a.png"))
    assert made.speed == "taylorseer:interval=4,order=2"
    assert same(draw(small, speed=made.speed), image)
    assert draw(small).info["speed"] == "exact"


def test_kernels_are_named_where_they_were_chosen(small, uncompiled):
    assert draw(small, compile=True).info["kernels"] == "blocks compiled"
    assert "kernels" not in draw(small).info

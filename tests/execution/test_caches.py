"""Caches: what is left out, what stands in for it, and that nothing stays behind."""

import numpy as np
import pytest
import torch

from urae.adapters import Lora, attach
from urae.execution import FirstBlock, MemoryPlan, TaylorSeer
from urae.execution.cache_hooks import cached
from urae.execution.caches import CACHES, cache_of, speed_text
from urae.generation import generate
from urae.generation.imax import Imax
from urae.generation.sdedit import Sdedit
from urae.generation.tiled import Tiled
from urae.resolution import ResolutionPolicy

TIGER = "a flat tiger on a wood background"
WHALE = "a glossy whale on a dotted background"
ALWAYS = FirstBlock(threshold=1e-9)
"""It computes everything."""


def draw(pipe, prompt=TIGER, **settings):
    return generate(pipe, prompt, **{"size": (64, 64), "steps": 8, **settings})


def same(left, right):
    return np.array_equal(np.asarray(left), np.asarray(right))


def differ(left, right):
    return np.abs(np.asarray(left, dtype=float) - np.asarray(right, dtype=float)).mean()


@pytest.fixture
def ran(small):
    """The blocks of `small` that have run, by kind."""
    blocks = {
        "first": small.transformer.transformer_blocks[0],
        "last": small.transformer.single_transformer_blocks[0],
    }
    names = []
    hooks = [
        block.attn.register_forward_hook(lambda *_, name=name: names.append(name))
        for name, block in blocks.items()
    ]
    yield names
    for hook in hooks:
        hook.remove()


@pytest.fixture
def velocities(small):
    """What the transformer of `small` has given back, call by call."""
    found = []
    hook = small.transformer.register_forward_hook(
        lambda module, given, output: found.append(output[0].clone())
    )
    yield found
    hook.remove()


# What is left out


@pytest.mark.parametrize("interval", [2, 3, 4, 5])
@pytest.mark.parametrize("steps", [4, 9])
def test_as_many_steps_are_computed_as_it_says(small, ran, interval, steps):
    cache = TaylorSeer(interval=interval)
    draw(small, steps=steps, speed=cache)
    assert ran.count("first") == ran.count("last") == cache.num_computed(steps) < steps


def test_between_computed_steps_the_velocity_goes_on_in_a_straight_line(small, velocities):
    draw(small, steps=8, speed=TaylorSeer(interval=3, order=1))  # computes 0, 1, 2, 4, 7
    v = velocities
    torch.testing.assert_close(v[3], v[2] + (v[2] - v[1]))
    torch.testing.assert_close(v[5], v[4] + (v[4] - v[2]) / 2)
    torch.testing.assert_close(v[6], v[4] + (v[4] - v[2]))
    assert not torch.allclose(v[7], v[4] + (v[4] - v[2]) * 3 / 2)


def test_order_0_repeats_the_velocity(small, velocities):
    draw(small, steps=7, speed=TaylorSeer(interval=3, order=0))
    assert velocities[3].equal(velocities[2])
    assert velocities[6].equal(velocities[4])


def test_the_first_block_decides(small, ran):
    draw(small, steps=6, speed=FirstBlock(threshold=1e9))
    assert (ran.count("first"), ran.count("last")) == (6, 1)
    ran.clear()
    exact = draw(small, steps=6)
    assert same(draw(small, steps=6, speed=ALWAYS), exact)
    assert ran.count("last") == 12


# What stays as it is


@pytest.mark.parametrize("cache", [TaylorSeer(), FirstBlock(threshold=1.0)], ids=speed_text)
def test_nothing_stays_behind(small, cache):
    exact = draw(small)
    before = [dict(vars(module)) for module in small.transformer.modules()]
    fast = draw(small, speed=cache)
    assert not same(fast, exact)
    assert [dict(vars(module)) for module in small.transformer.modules()] == before
    assert same(draw(small), exact)
    assert same(draw(small, speed=cache), fast)


def test_a_picture_that_fails_leaves_nothing_behind_either(small):
    before = [dict(vars(module)) for module in small.transformer.modules()]
    with pytest.raises(KeyboardInterrupt), cached(small.transformer, TaylorSeer(), lambda: None):
        raise KeyboardInterrupt
    assert [dict(vars(module)) for module in small.transformer.modules()] == before


def test_company_does_not_change_a_picture(small):
    cache = FirstBlock(threshold=0.3)
    both = draw(small, [TIGER, WHALE], speed=cache)
    assert same(both[1], draw(small, WHALE, speed=cache))


def test_every_step_is_reported(small):
    steps = []
    draw(small, steps=5, speed="fast", on_step=lambda: steps.append(1))
    assert len(steps) == 5


def test_the_native_picture_is_that_of_exact(small):
    natives = []
    for speed in ("exact", "fast"):
        settings = {"size": (128, 128), "method": Sdedit(native_steps=5), "steps": 5}
        draw(small, speed=speed, on_native=natives.append, **settings)
    assert same(*natives)


# Company: methods, policies, adapters, offloading


@pytest.mark.parametrize(
    "method", [Sdedit(native_steps=2), Imax(native_steps=2, shifted_patches=True), Tiled()]
)
def test_what_leaves_nothing_out_changes_nothing(small, method):
    settings = {"size": (128, 128), "method": method, "steps": 4}
    assert same(draw(small, speed=ALWAYS, **settings), draw(small, **settings))


def test_windows_do_not_see_each_others_memory(small):
    # Nine windows, two or nine in a call: what each of them extrapolates is the same.
    two, nine = (
        draw(small, size=(128, 128), method=Tiled(windows_per_call=num), steps=6, speed="fast")
        for num in (2, 9)
    )
    assert differ(two, nine) < 0.1
    assert differ(two, draw(small, size=(128, 128), method=Tiled(), steps=6)) > 0.1


def test_shifted_patches_have_a_memory_of_their_own(small, ran):
    method = Imax(native_steps=1, shifted_patches=True)
    draw(small, size=(128, 128), method=method, steps=16, speed=TaylorSeer())
    assert ran.count("first") == 1 + 2 * TaylorSeer().num_computed(8)


def test_a_policy_that_changes_in_every_step(small):
    policy = ResolutionPolicy(rope="dype", scale=2.0, native_grid=4, shift=2.0)
    exact = draw(small, size=(128, 128), policy=policy)
    assert same(draw(small, size=(128, 128), policy=policy, speed=ALWAYS), exact)
    assert not same(draw(small, size=(128, 128), policy=policy, speed="fast"), exact)


def test_an_attached_adapter(small):
    attached = attach(small.transformer, Lora(rank=2))
    for parameter in attached.parameters():
        torch.nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(0))
    adapter = attached.export()
    attached.detach()
    exact = draw(small, adapter=adapter)
    assert same(draw(small, adapter=adapter, speed=ALWAYS), exact)
    fast = draw(small, adapter=adapter, speed="fast")
    assert not same(fast, exact)
    assert not same(fast, draw(small, speed="fast"))


def test_a_part_at_a_time_on_the_device(small):
    plan = MemoryPlan(device="cpu", offload="model")
    assert same(draw(small, speed="fast", memory=plan), draw(small, speed="fast"))
    assert same(draw(small), draw(small))


# In words


@pytest.mark.parametrize("cache", [TaylorSeer(), TaylorSeer(interval=2, order=0), FirstBlock(threshold=0.2)])
def test_a_cache_and_its_text(cache):
    assert cache_of(speed_text(cache)) == cache
    assert cache_of(cache.name) == CACHES[cache.name]()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("magic", "speed is 'magic': expected exact, fast or a cache, taylorseer or first-block"),
        (
            "taylorseer:interval",
            "'interval' is not a setting of taylorseer: expected interval or order, as name=value",
        ),
        ("first-block:interval=3", "'interval=3' is not a setting of first-block: expected threshold"),
        ("taylorseer:interval=x", "interval is 'x': expected a whole number"),
        ("first-block:threshold=x", "threshold is 'x': expected a number"),
        ("taylorseer:interval=1", "interval is 1: expected a whole number of 2 or more"),
        ("taylorseer:interval=3,interval=4", "interval=4': expected each setting once"),
        ("taylorseer:order=3", "order is 3: expected 0, 1 or 2"),
        ("first-block:threshold=0", r"threshold is 0.0: expected a number above 0"),
    ],
)
def test_other_words_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        cache_of(text)


# Refusals


def test_a_compiled_transformer_is_refused(small):
    plain = small.transformer
    small.transformer = torch.compile(plain, backend="eager")
    with pytest.raises(
        ValueError, match=r"taylorseer works by hooks, which a compiled transformer may ignore"
    ):
        draw(small, speed="fast")
    block = plain.transformer_blocks[0]
    block.compile(backend="eager")
    small.transformer = plain
    try:
        with pytest.raises(ValueError, match="compiled transformer may ignore"):
            draw(small, speed="fast")
    finally:
        block._compiled_call_impl = None

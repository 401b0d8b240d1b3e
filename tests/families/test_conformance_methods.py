"""Every method of generation at twice the native size, with every family; what they tell, comparing, caches."""

import json
from dataclasses import replace

import pytest
from tiny_families import drawn

from urae.execution.caches import CACHES, TaylorSeer
from urae.generation import Direct, Hiflow, Imax, Sdedit, Tiled, Way, compare_ways, generate
from urae.generation.methods import options_of
from urae.provenance import Provenance
from urae.resolution import ResolutionPolicy, active_policy

LARGE = (128, 128)
"""Twice the native side."""

METHODS = {
    "direct": Direct(),
    "tiled": Tiled(windows_per_call=2),
    "sdedit": Sdedit(native_steps=2),
    "imax": Imax(native_steps=2),
    "imax, shifted": Imax(native_steps=2, shifted_patches=True),
    "hiflow": Hiflow(native_steps=2),
    "hiflow, shifted": Hiflow(native_steps=2, shifted_patches=True, reference="picture"),
}


@pytest.fixture(scope="session")
def direct(tiny):
    """What the others differ from."""
    return generate(tiny.pipe, "a b", size=LARGE, steps=2)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_draws_at_twice_the_size_and_says_how(tiny, direct, name):
    method, steps = METHODS[name], []
    picture = generate(
        tiny.pipe, "a b", size=LARGE, method=method, steps=2, on_step=lambda: steps.append(name)
    )
    told = Provenance.from_info(picture.info)
    assert (picture.size, told.size, told.prompt, told.steps) == (LARGE, LARGE, "a b", 2)
    guidance = tiny.family.guidance.usual(tiny.pipe, method.guidance)
    assert (told.method, told.guidance) == (method.name, guidance)
    if "native_guidance" in told.options:  # a number, where the request left it open
        method = replace(method, native_guidance=tiny.family.guidance.usual(tiny.pipe, Direct.guidance))
    assert told.options == options_of(method)
    assert told.policy == method.policy(ResolutionPolicy.for_size(tiny.pipe, LARGE))
    assert len(steps) == 2 + getattr(method, "native_steps", 0)
    assert (picture.tobytes() == direct.tobytes()) == (name == "direct")
    assert active_policy(tiny.pipe) is None


def test_text_is_repeated_or_that_is_refused(tiny, direct):
    method = Imax(native_steps=2, repeat_text=True)
    if not tiny.repeats_text:
        with pytest.raises(ValueError, match="text"):
            generate(tiny.pipe, "a b", size=LARGE, method=method, steps=2)
        return
    once, often = (
        generate(tiny.pipe, "a b", size=LARGE, method=replace(method, repeat_text=each), steps=2)
        for each in (False, True)
    )
    assert once.tobytes() != often.tobytes()


def test_stock_behaviour_is_the_stock_pipeline(tiny):
    found = generate(tiny.pipe, "a b", size=(64, 64), policy="none", steps=2)
    stock = drawn(tiny, size=(64, 64), guidance=tiny.family.guidance.usual(tiny.pipe, 3.5))
    assert found.tobytes() == tiny.pipe.image_processor.numpy_to_pil(stock[None])[0].tobytes()


def test_ways_are_compared(tiny):
    ways = [Way(label="direct", method=Direct(), steps=2), Way(label="tiled", method=Tiled(), steps=2)]
    direct, tiled = compare_ways(tiny.pipe, "a b", ways, size=LARGE)
    a_step = 2 if tiny.guiding == "cfg" else 1
    assert direct.calls == 2 * (1 if tiny.guided_at_once else a_step)
    assert direct.tokens == 2 * a_step * (LARGE[0] // 16) * (LARGE[1] // 16)
    assert tiled.tokens > direct.tokens  # windows overlap


@pytest.mark.parametrize("name", CACHES)
def test_a_cache_leaves_work_out_or_is_refused(tiny, name):
    cache = CACHES[name]()
    before = {module: dict(vars(module)) for module in tiny.transformer.modules()}
    if name not in tiny.caches:
        with pytest.raises(ValueError, match=f"{name} is not available"):
            generate(tiny.pipe, "a b", size=LARGE, steps=4, speed=cache)
    else:
        picture = generate(tiny.pipe, "a b", size=LARGE, steps=4, speed=cache)
        assert picture.info["speed"].startswith(name)
    assert {module: dict(vars(module)) for module in tiny.transformer.modules()} == before


@pytest.mark.parametrize("method", [Direct(), Tiled(window=64)])
def test_a_cache_that_only_repeats_is_off_by_little(tiny, method):
    """Calls with and without the prompt, and windows, each extrapolate their own."""
    if "taylorseer" not in tiny.caches:
        return
    exact, fast = (
        generate(tiny.pipe, "a b", size=LARGE, steps=6, method=method, speed=speed)
        for speed in ("exact", TaylorSeer(interval=2, order=1))
    )
    other = generate(tiny.pipe, "a b", size=LARGE, steps=6, method=method, seed=1)
    assert 0 < difference(exact, fast) < difference(exact, other) / 4


def difference(one, other) -> float:
    pairs = zip(one.tobytes(), other.tobytes(), strict=True)
    return sum(abs(a - b) for a, b in pairs) / len(one.tobytes())


def test_a_policy_of_the_owner_stays_with_the_picture(tiny):
    policy = ResolutionPolicy(linear=True, scale=2.0)
    picture = generate(tiny.pipe, "a b", size=LARGE, steps=2, policy=policy)
    assert json.loads(picture.info["policy"]) == json.loads(policy.to_json())

"""Every family's positions under a policy: stock where it is neutral, reckoned here where not, and put back."""

from contextlib import nullcontext

import pytest
import torch
from tiny_families import (
    LARGE,
    NATIVE,
    drawn,
    golden_calls,
    golden_tokens,
    golden_transformer,
    noisy,
    parts_of,
    tables,
    velocity,
)

from urae.families.family import RotaryCall
from urae.resolution import ResolutionPolicy, active_policy
from urae.resolution.schedule import without_policy

SIZES = [NATIVE, LARGE]
RULES = {
    "linear": {"linear": True, "scale": 2.0},
    "theta": {"rope_scale": 10.0},
    "clip": {"rope_scale": 4.0, "rope_clip": True, "scale": 2.0},
    "ntk": {"rope": "ntk", "scale": 2.0},
    "yarn": {"rope": "yarn", "scale": 2.0, "native_grid": 4},
    "dype": {"rope": "dype", "scale": 2.0, "native_grid": 4},
}


def neutral() -> ResolutionPolicy:
    return ResolutionPolicy(exact_ids=False)


def same(found, expected) -> bool:
    return all(
        torch.equal(one, other)
        for call, stock in zip(found, expected, strict=True)
        for one, other in zip(call.tables, stock.tables, strict=True)
    )


def columns_of(tiny, role: str) -> torch.Tensor:
    """Which columns of a table belong to axes of this role."""
    axes = tiny.family.rotary.axes(tiny.transformer)
    still = torch.zeros(1, sum(axis.channels for axis in axes) // 2)
    turned = torch.cat(
        [torch.full((1, axis.channels // 2), float(axis.role == role)) for axis in axes], dim=1
    )
    call = RotaryCall(positions=torch.zeros(1, len(axes)), num_tokens=1)
    made = (parts_of(tiny.family.rotary.tables(one, 1.0, call)) for one in (still, turned))
    pairs = zip(*made, strict=True)
    return torch.stack([(one != other)[0] for one, other in pairs if len(one)]).any(dim=0)


def native_places(call, divisor: float) -> torch.Tensor:
    """Positions (tokens, axes), of which rows and columns are still to be divided, where this is for images only: text
    that moves with the size of the image begins where it does at the native one."""
    if call.is_image is None:
        return call.positions
    moved = call.positions - call.text_offset * (1 - 1 / divisor)
    moved[:, 1:] *= divisor
    return torch.where(call.is_image[:, None], call.positions.double(), moved.double())


def text_of(tiny, call) -> torch.Tensor:
    """Which tokens (tokens,) no rule is for."""
    if call.is_image is not None:
        return ~call.is_image
    spatial = [place for place, (_, _, role) in enumerate(tiny.axes) if role != "other"]
    return (call.positions[:, spatial] == 0).all(dim=1)


def angles(tiny, positions: torch.Tensor, *, divisor: float) -> torch.Tensor:
    """positions (tokens, axes) x theta^(-2i / channels), rows and columns divided, in fp64."""
    parts = []
    for place, (channels, theta, role) in enumerate(tiny.axes):
        omega = theta ** (-torch.arange(0, channels, 2, dtype=torch.float64) / channels)
        position = positions[:, place].double() / (1.0 if role == "other" else divisor)
        parts.append(position[:, None] * omega)
    return torch.cat(parts, dim=1)


def test_axes_are_those_of_the_published_models(tiny):
    found = tiny.family.rotary.axes(tiny.transformer)
    assert tuple((axis.channels, axis.theta, axis.role) for axis in found) == tiny.axes


@pytest.mark.parametrize("num", [1, 2])
@pytest.mark.parametrize("size", SIZES)
def test_a_neutral_policy_is_stock_to_the_bit(tiny, size, num):
    stock, latents = tables(tiny, size, num=num), noisy(tiny, size, num=num)
    with torch.no_grad():
        plain = velocity(tiny, latents)
        with neutral().on(tiny.transformer):
            assert same(tables(tiny, size, num=num), stock)
            assert torch.equal(velocity(tiny, latents), plain)


@pytest.mark.parametrize("size", SIZES)
def test_pictures_under_a_neutral_policy_are_stock_to_the_bit(tiny, size):
    expected = drawn(tiny, size=size)
    with neutral().on(tiny.transformer):
        assert (drawn(tiny, size=size) == expected).all()


@pytest.mark.parametrize("size", [(128, 128), (256, 192)])
def test_linear_by_two_is_half_of_each_row_and_column(tiny, size):
    """On the doubled grid, from positions and frequencies that are reckoned here."""
    with ResolutionPolicy(linear=True, scale=2.0).on(tiny.transformer):
        found = tables(tiny, size)
    for call in found:
        half = angles(tiny, native_places(call.call, 2.0), divisor=2.0)
        expected = parts_of(tiny.family.rotary.tables(half, 1.0, call.call))
        for one, other in zip(call.tables, expected, strict=True):
            torch.testing.assert_close(one, other.to(one.dtype), atol=1e-6, rtol=0)


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_leaves_text_and_other_axes_alone(tiny, rule):
    """And changes rows and columns of the image."""
    policy, stock = ResolutionPolicy(**RULES[rule]), tables(tiny)
    with policy.on(tiny.transformer):
        found = tables(tiny)
    others = columns_of(tiny, "other")
    assert 0 < others.sum() < len(others)
    num_image = 0
    for call, plain in zip(found, stock, strict=True):
        whole = text_of(tiny, call.call)
        num_image += int((~whole).sum())
        starts = [0, len(call.tables[0])] if len(call.tables[0]) < len(whole) else [0, 0]
        for start, one, other in zip(starts, call.tables, plain.tables, strict=False):
            is_text = whole[start : start + len(one)]
            if (
                call.call.text_offset
            ):  # the text moves, but for plain scaling, at a native size that is not its own
                assert torch.equal(one[is_text], other[is_text]) == (rule == "theta" or not is_text.any())
                one, other = one[~is_text], other[~is_text]
                is_text = is_text[~is_text]
            assert torch.equal(one[:, others], other[:, others])
            if not is_text.all():  # as in a call for the text alone
                assert not torch.equal(one[~is_text], other[~is_text])
            if rule not in ("yarn", "dype"):  # whose factor is on rows and columns of all tokens
                assert torch.equal(one[is_text], other[is_text])
    # But for the token at row 0 and column 0, unless the family says which tokens are the image's.
    assert num_image == 8 * 6 - (call.call.is_image is None)


@pytest.mark.parametrize("variant", ["stock", "proportional", "linear2"])
def test_golden_values(tiny, variant):
    policies = {
        "stock": neutral(),
        "proportional": ResolutionPolicy(proportional=True, native_tokens=golden_tokens(tiny)),
        "linear2": ResolutionPolicy(linear=True, scale=2.0),
    }
    transformer = golden_transformer(tiny)
    for grid, call in golden_calls(tiny).items():
        if variant in call["out"]:
            with policies[variant].on(transformer), torch.no_grad():
                found = transformer(**call["in"], return_dict=False)[0]
                found = torch.stack(found) if isinstance(found, list) else found
            torch.testing.assert_close(found, call["out"][variant], atol=1e-4, rtol=0, msg=grid)


def snapshot(pipe) -> dict:
    """Every attribute of the transformer's modules, its weights aside, and the scheduler."""
    modules = {name: dict(vars(module)) for name, module in pipe.transformer.named_modules()}
    for attributes in modules.values():
        attributes.update({key: dict(value) for key, value in attributes.items() if isinstance(value, dict)})
    return {"modules": modules, "scheduler": pipe.scheduler, "settings": dict(pipe.scheduler.config)}


@pytest.mark.parametrize("fails", [False, True], ids=["", "after an exception"])
@pytest.mark.parametrize("rule", ["linear", "dype"])
def test_all_is_as_before_on_exit(tiny, rule, fails):
    before, pipe = snapshot(tiny.pipe), tiny.pipe
    with pytest.raises(ZeroDivisionError) if fails else nullcontext():  # noqa: SIM117
        with policy_of(rule).on(pipe):
            tables(tiny)
            assert active_policy(pipe) == policy_of(rule)
            assert pipe.scheduler.config.shift == 1.5
            if fails:
                raise ZeroDivisionError
    assert snapshot(pipe) == before
    assert active_policy(pipe) is None


def policy_of(rule: str) -> ResolutionPolicy:
    return ResolutionPolicy(shift=1.5, **RULES[rule])


def test_an_inner_policy_replaces_an_outer_one(tiny):
    stock, pipe = tables(tiny), tiny.pipe
    with policy_of("theta").on(pipe):
        outer = tables(tiny)
        with policy_of("linear").on(pipe):
            inner = tables(tiny)
            with without_policy(pipe):
                assert same(tables(tiny), stock)
            assert same(tables(tiny), inner)
        assert same(tables(tiny), outer)
    with policy_of("linear").on(pipe):
        assert same(tables(tiny), inner)
    assert not same(inner, outer)


@pytest.mark.thorough
def test_a_policy_that_is_entered_after_compiling_counts(tiny):
    transformer = torch.compile(tiny.transformer, backend="eager")
    latents = noisy(tiny)
    try:
        with torch.no_grad():
            plain = velocity(tiny, latents, transformer=transformer)
            torch.testing.assert_close(plain, velocity(tiny, latents), atol=1e-5, rtol=0)
            with policy_of("linear").on(transformer):
                found = velocity(tiny, latents, transformer=transformer)
            with policy_of("linear").on(tiny.transformer):
                expected = velocity(tiny, latents)
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
            assert not torch.allclose(found, plain, atol=1e-4)
            torch.testing.assert_close(velocity(tiny, latents, transformer=transformer), plain)
    finally:
        torch.compiler.reset()

"""NTK, YaRN and DyPE: frequencies by the formulas, tables by hand, and the transformer that they are told to."""

import math

import pytest
import torch

from urae.resolution import ResolutionPolicy
from urae.resolution.frequencies import frequencies

RULES = {
    "ntk": ResolutionPolicy(rope="ntk", scale=2.0, proportional=True, native_tokens=23),
    "yarn": ResolutionPolicy(rope="yarn", scale=2.0, native_grid=4),
    "dype": ResolutionPolicy(rope="dype", scale=2.0, native_grid=4),
    "dype_ntk": ResolutionPolicy(rope="dype_ntk", scale=2.0),
}


def inputs(batch=1, sigma=0.5):
    generator = torch.Generator().manual_seed(3)
    ids = [[0, y, x] for y in range(8) for x in range(6)]
    return {
        "hidden_states": torch.randn(batch, 48, 64, generator=generator),
        "encoder_hidden_states": torch.randn(batch, 7, 32, generator=generator),
        "pooled_projections": torch.randn(batch, 24, generator=generator),
        "timestep": torch.full((batch,), sigma),
        "guidance": torch.full((batch,), 3.5),
        "img_ids": torch.tensor(ids).float(),
        "txt_ids": torch.zeros(7, 3),
    }


def run(transformer, **changes):
    with torch.no_grad():
        return transformer(**inputs(**changes)).sample


def flux(rope, sigma=1.0, scale=4.0):
    """Of FLUX.1 at `scale`, relative to the native ones."""
    omega = frequencies(rope, theta=10000, dim=56, scale=scale, native=64, sigma=sigma)
    return omega / 10000 ** (-torch.arange(0, 56, 2) / 56).double()


# Frequencies


@pytest.mark.parametrize(
    ("rope", "sigma", "ratios"),
    [
        ("yarn", 0.3, [1, 0.85, 0.25, 0.25, 0.25, 0.25, 0.25]),
        ("dype", 1.0, [1, 0.85, 0.25, 0.25, 0.25, 0.25, 0.25]),
        ("dype", 0.5, [1, 0.95, 0.75, 0.35, 0.25, 0.25, 0.25]),
        ("dype", 0.105, [1, 1, 1, 1, 0.68, 0.36, 0.25]),
        ("dype", 1e-4, [1, 1, 1, 1, 1, 1, 1]),
    ],
)
def test_ratios_at_4k_are_those_of_the_published_code(rope, sigma, ratios):
    ours = flux(rope, sigma)[[0, 4, 8, 12, 16, 20, 27]]
    torch.testing.assert_close(ours, torch.tensor(ratios).double(), rtol=0, atol=0.006)


def dense_yarn(scale, kappa):
    """YaRN one frequency at a time, with branches instead of ramps."""
    result = []

    def share(i, turns_from, turns_to):
        lo, hi = (
            56 * math.log(64 / (2 * math.pi * r * kappa)) / (2 * math.log(1e4))
            for r in (turns_from, turns_to)
        )
        lo, hi = max(math.floor(lo), 0), math.ceil(hi)
        return 1.0 if i <= lo else 0.0 if i >= hi else (hi - i) / (hi - lo)

    for i in range(28):
        omega, ntk = 1e4 ** (-2 * i / 56), (1e4 * scale ** (56 / 54)) ** (-2 * i / 56)
        far, near = share(i, 1.25, 0.75), share(i, 16, 2)
        lowered = far * ntk + (1 - far) * omega / scale
        result.append(near * omega + (1 - near) * lowered)
    return torch.tensor(result).double()


@pytest.mark.parametrize("scale", [1.5, 2.0, 4.0])
@pytest.mark.parametrize("sigma", [1.0, 0.8, 0.4, 0.1])
def test_yarn_and_dype_are_the_dense_formula(scale, sigma):
    native = 1e4 ** (-torch.arange(0, 56, 2) / 56).double()
    torch.testing.assert_close(flux("yarn", sigma, scale) * native, dense_yarn(scale, 1.0))
    torch.testing.assert_close(flux("dype", sigma, scale) * native, dense_yarn(scale, sigma**2))


def test_ntk_lowers_the_slowest_by_scale_and_the_fastest_not_at_all():
    assert flux("ntk")[[0, -1]].tolist() == pytest.approx([1.0, 0.25])


def test_dype_over_ntk_goes_from_twice_the_exponent_to_the_native_frequencies():
    assert flux("dype_ntk", 1.0)[-1].item() == pytest.approx(1 / 16)
    assert flux("dype_ntk", math.sqrt(0.5))[-1].item() == pytest.approx(1 / 4)
    assert flux("dype_ntk", 1e-4)[-1].item() == pytest.approx(1.0)


def test_ntk_is_theta_scaling_by_the_rule(transformer):
    # axes of 6 channels in the tiny model: theta x 2^(6 / 4)
    rule, by_hand = ResolutionPolicy(rope="ntk", scale=2.0), ResolutionPolicy(rope_scale=2.0**1.5)
    assert list(transformer.config.axes_dims_rope[1:]) == [6, 6]
    with rule.on(transformer):
        ours = run(transformer)
    with by_hand.on(transformer):
        torch.testing.assert_close(ours, run(transformer), rtol=0, atol=1e-5)


# In a transformer


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("sigma", [1.0, 0.3])
def test_tables_of_a_call_are_the_rules(transformer, name, sigma):
    policy, seen = RULES[name], []
    ids = torch.cat([inputs()["txt_ids"], inputs()["img_ids"]]).double()
    with policy.on(transformer):
        transformer.pos_embed.register_forward_hook(lambda module, given, tables: seen.append(tables))
        run(transformer, sigma=sigma)
    columns, factors = [], []
    for axis, dim in enumerate(transformer.config.axes_dims_rope):
        native = 10000 ** (-torch.arange(0, dim, 2) / dim).double()
        rule = {"theta": 10000, "dim": dim, "scale": 2.0, "native": 4, "sigma": sigma}
        omega = frequencies(policy.rope, **rule) if axis else native
        columns += [ids[:, axis] * omega[i] for i in range(dim // 2) for _ in (0, 1)]
        factors += [0.1 * math.log(2) + 1 if axis and name in ("yarn", "dype") else 1.0] * dim
    attention = (math.log(55) / math.log(23)) ** 0.25 if policy.proportional else 1.0
    angles, factors = torch.stack(columns, dim=1), torch.tensor(factors) * attention
    torch.testing.assert_close(seen[0][0], (angles.cos() * factors).float(), rtol=0, atol=1e-5)
    torch.testing.assert_close(seen[0][1], (angles.sin() * factors).float(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", RULES)
def test_each_image_of_a_batch_is_as_alone(transformer, name):
    with RULES[name].on(transformer):
        together = run(transformer, batch=2)
        x = inputs(batch=2)
        shared = {"img_ids", "txt_ids"}
        with torch.no_grad():
            second = transformer(**{k: v if k in shared else v[1:] for k, v in x.items()}).sample
    torch.testing.assert_close(together[1:], second, rtol=0, atol=1e-5)


def test_noise_levels_that_differ_within_a_batch_are_refused(transformer):
    x = inputs(batch=2) | {"timestep": torch.tensor([0.5, 0.6])}
    message = "rope 'dype' needs one noise level for the whole batch"
    with RULES["dype"].on(transformer), pytest.raises(ValueError, match=message):
        transformer(**x)
    with torch.no_grad(), RULES["yarn"].on(transformer):
        transformer(**x)


def test_dype_is_told_the_timestep_by_position_and_compiled_too(transformer):
    x = inputs()
    names = ["hidden_states", "encoder_hidden_states", "pooled_projections", "timestep", "img_ids", "txt_ids"]
    with RULES["dype"].on(transformer):
        expected = run(transformer)
        with torch.no_grad():
            by_position = transformer(*(x[name] for name in names), x["guidance"]).sample
    assert torch.equal(by_position, expected)
    compiled = torch.compile(transformer, backend="eager")
    with RULES["dype"].on(compiled):
        torch.testing.assert_close(run(compiled), expected, rtol=0, atol=1e-6)
        run(compiled, sigma=0.2)
    with RULES["dype"].on(transformer):
        pass
    transformer.compile(backend="eager")
    with pytest.raises(ValueError, match="dype needs a hook"), RULES["dype"].on(transformer):
        pass


def test_everything_is_restored(transformer):
    before, embedding = run(transformer), transformer.pos_embed
    for policy in RULES.values():
        with policy.on(transformer):
            assert not torch.allclose(run(transformer), before, atol=1e-4)
    assert transformer.pos_embed is embedding
    assert not transformer._forward_pre_hooks
    assert torch.equal(run(transformer), before)


# Settings


@pytest.mark.parametrize("policy", RULES.values(), ids=RULES)
def test_json_round_trip(policy):
    assert ResolutionPolicy.from_json(policy.to_json()) == policy


def test_a_file_without_these_settings_is_read_as_before():
    assert ResolutionPolicy.from_json('{"rope_scale": 10.0}').rope == "theta"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rope": "rope"}, "rope is 'rope': expected one of theta, ntk, yarn, dype, dype_ntk"),
        ({"rope": 1}, "rope is 1: expected a name"),
        ({"rope": "yarn"}, "rope 'yarn' has no effect at scale 1"),
        (
            {"rope": "yarn", "scale": 2.0, "proportional": True},
            "proportional would be stacked on the attention",
        ),
        (
            {"rope": "dype", "scale": 2.0, "proportional": True},
            "that dype brings along: leave proportional out",
        ),
        ({"rope": "ntk", "scale": 2.0, "linear": True}, "linear has no effect with rope 'ntk'"),
        ({"rope": "ntk", "scale": 2.0, "rope_scale": 10.0}, "rope_scale has no effect with rope 'ntk'"),
        ({"rope": "ntk", "scale": 2.0, "native_grid": 8}, "native_grid 8 has no effect with rope 'ntk'"),
        ({"rope": "yarn", "scale": 2.0, "native_grid": 0}, "native_grid is 0: expected 1 or more"),
    ],
)
def test_settings_out_of_range_or_without_effect_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        ResolutionPolicy(**settings)

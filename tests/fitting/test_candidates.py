"""Which policies are measured, and what is refused before anything is."""

import pytest

from urae.fitting import RULES, STOCK, FittingRequest, candidates_for
from urae.fitting.candidates import rule_of
from urae.resolution import ResolutionPolicy


def asked(**changes):
    return FittingRequest(**{"images": "mini:clean:6", "size": 256, **changes})


def test_the_default_of_the_size_is_among_them(pipeline):
    made = candidates_for(pipeline, asked(), {})
    assert ResolutionPolicy.for_size(pipeline, 256) in made.values()
    assert list(made)[0] == STOCK
    assert {rule_of(policy) for policy in made.values()} == {"stock", *RULES}
    assert len(set(made.values())) == len(made) == 14
    assert len({policy.shift for policy in made.values()}) == 1


def test_a_factor_acts_on_the_scale_and_on_the_base(pipeline):
    made = candidates_for(pipeline, asked(rules=("linear", "theta"), factors=(1.0, 1.5)), {})
    assert made["linear x 1.5"].scale == 3
    assert made["theta"].rope_scale == 10
    assert made["theta x 1.5, proportional"].proportional


def test_policies_of_ones_own_come_last(pipeline):
    own = ResolutionPolicy(linear=True, scale=1.8)
    assert list(candidates_for(pipeline, asked(rules=()), {"mine": own}).values())[-1] == own
    with pytest.raises(ValueError, match="the candidate's name 'stock positions' is taken"):
        candidates_for(pipeline, asked(), {STOCK: own})


def test_what_needs_no_policy_is_refused(pipeline):
    with pytest.raises(ValueError, match="size is 128: expected one above the native size, 128 px"):
        candidates_for(pipeline, asked(size=128), {})
    with pytest.raises(ValueError, match=r"factor is 0.5: at 2 times the native size expected more than 0.5"):
        candidates_for(pipeline, asked(factors=(0.5,)), {})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rules": ("lineal",)}, "rule is 'lineal': expected one of linear, theta"),
        ({"factors": (-1.0,)}, "factor is -1.0: expected a number above 0"),
        ({"factors": ()}, "there is no factor"),
        ({"sigmas": (0.9, 1.0)}, "sigma is 1.0: expected a noise level between 0 and 1"),
        ({"sigmas": (0.1, 0.7)}, "no sigma is 0.8 or above, and those decide"),
        ({"pictures": 5}, "pictures is 5: expected 6 or more"),
    ],
)
def test_a_request_out_of_range_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        asked(**changes)

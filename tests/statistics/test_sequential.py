"""The sequential sign test: a bet that is fair under the null hypothesis and grows under the other."""

import math

import numpy as np
import pytest

from urae.statistics.sequential import evidence


@pytest.mark.parametrize("num", [1, 5, 12, 40])
def test_a_fair_coin_leaves_the_stake_as_it_is(num):
    """In the mean over all outcomes."""
    mean = sum(math.comb(num, above) * evidence(above, num - above) for above in range(num + 1)) / 2**num
    assert mean == pytest.approx(1)


@pytest.mark.parametrize(("above", "below"), [(0, 0), (7, 0), (0, 7), (9, 3)])
def test_it_is_the_mean_over_coins(above, below):
    q = (np.arange(200_000) + 0.5) / 400_000 + 0.5
    assert evidence(above, below) == pytest.approx(np.mean((2 * q) ** above * (2 - 2 * q) ** below), rel=1e-6)


def test_looking_after_every_pair_seldom_deceives():
    """Of fair coins at most a twentieth ever reaches a stake of 20, in 100 pairs."""
    rng = np.random.default_rng(0)
    above = rng.integers(0, 2, size=(400, 100)).cumsum(axis=1)
    stakes = {(a, n - a): evidence(a, n - a) for n in range(1, 101) for a in range(n + 1)}
    ever = [any(stakes[a, n - a] >= 20 for n, a in enumerate(row.tolist(), start=1)) for row in above]
    assert 0.005 < np.mean(ever) <= 0.05

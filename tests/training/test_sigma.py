import math

import numpy as np
import pytest

from urae.training.sigma import DISTRIBUTIONS, draw_sigma, share_above, shift_at, shifted


@pytest.mark.parametrize("distribution", sorted(DISTRIBUTIONS))
@pytest.mark.parametrize("shift", [0.5, 1.0, 6.0])
def test_shares_agree_with_draws(distribution, shift):
    rng = np.random.default_rng(0)
    draws = np.array([draw_sigma(rng, distribution=distribution, shift=shift) for _ in range(20_000)])
    assert ((draws >= 0) & (draws <= 1)).all()
    for sigma in (0.3, 0.9, 0.99):
        share = share_above(sigma, distribution=distribution, shift=shift)
        assert (draws > sigma).mean() == pytest.approx(
            share, abs=4 * math.sqrt(share * (1 - share) / 20_000) + 1e-4
        )


def test_the_default_is_uniform_and_unshifted():
    rng = np.random.default_rng(0)
    draws = [draw_sigma(rng, distribution="uniform", shift=1.0) for _ in range(4000)]
    assert np.allclose(np.quantile(draws, [0.1, 0.5, 0.9]), [0.1, 0.5, 0.9], atol=0.03)


def test_a_shift_is_undone_by_its_inverse():
    for sigma in (0.0, 0.2, 0.99, 1.0):
        assert shifted(shifted(sigma, 7.0), 1 / 7.0) == pytest.approx(sigma)
    assert shifted(0.5, 3.0) == pytest.approx(0.75)


@pytest.mark.parametrize(
    ("shift", "uniform", "logit_normal"),
    [(25.3, 0.204, 0.086), (810.0, 0.891, 0.982), (103_777.0, 0.999, 1.0)],
)
def test_the_linear_rule_trains_on_noise(shift, uniform, logit_normal):
    """The shifts of exp(mu) at 2048, 3072 and 4096 px."""
    assert share_above(0.99, distribution="uniform", shift=shift) == pytest.approx(uniform, abs=5e-4)
    assert share_above(0.99, distribution="logit_normal", shift=shift) == pytest.approx(
        logit_normal, abs=5e-4
    )


def test_the_square_root_rule_is_bounded():
    grown = [shift_at(scale, shift=3.0, rule="sqrt", distribution="uniform") for scale in (1, 2, 4)]
    assert grown == [3.0, 6.0, 12.0]
    assert shift_at(4.0, shift=3.0, rule="constant", distribution="uniform") == 3.0


def test_a_shift_that_trains_on_noise_is_refused_with_the_share():
    with pytest.raises(
        ValueError, match=r"a sigma shift of 810 puts 89\.1% of the uniform draws above sigma = 0\.99"
    ):
        shift_at(1.0, shift=810.0, rule="constant", distribution="uniform")
    with pytest.raises(ValueError, match=r"shift of 240 puts 81\.\d% of the logit_normal draws"):
        shift_at(4.0, shift=60.0, rule="sqrt", distribution="logit_normal")

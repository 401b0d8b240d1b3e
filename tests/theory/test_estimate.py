"""Estimates: unbiased on data of known noise and gap, with standard errors that cover."""

import numpy as np
import pytest

from urae.theory import Estimate, Estimates, advise, estimate, mean_squared_gap, noise_gain, repeat_variance

NOISE, GAP, DIVERSITY = 0.5, 0.09, 0.2
SHAPE = (4, 3)


def world(seed, *, captions=60, repeats=2, diversity=DIVERSITY):
    """Truths, noisy real images and a teacher that is off by 0.3 everywhere, some of each for every caption."""
    rng = np.random.default_rng(seed)
    centre = {f"caption {i}": rng.normal(size=SHAPE) for i in range(captions)}

    def images(offset=0.0, noise=0.0):
        spread = np.sqrt(diversity + noise)
        return {c: m + offset + spread * rng.normal(size=(repeats, *SHAPE)) for c, m in centre.items()}

    return images(noise=NOISE), images(offset=np.sqrt(GAP)), images()


def deviation(value, expected):
    return (value.value - expected) / value.standard_error


def test_estimates_from_pairs_are_unbiased_and_their_errors_cover():
    results = [estimate(real, synthetic=syn, truth=truth) for real, syn, truth in map(world, range(40))]
    for name, expected in (("noise", NOISE), ("teacher_gap", GAP)):
        values = np.array([getattr(result, name).value for result in results])
        errors = np.array([getattr(result, name).standard_error for result in results])
        assert abs(values.mean() - expected) < 4 * values.std() / np.sqrt(40)
        # The parts share their images, so the error that takes them as independent is too large if anything.
        assert 0.8 < errors.mean() / values.std() < 1.6


def test_noise_from_repeats_where_real_captions_have_no_truth():
    real, synthetic, truth = world(3)
    renamed = {f"other {caption}": images for caption, images in real.items()}
    result = estimate(renamed, synthetic=synthetic, truth=truth)
    assert abs(deviation(result.noise, NOISE)) < 4
    assert "repeated" in result.noise.basis


def test_single_images_leave_the_order_of_noise_and_gap_alone():
    real, synthetic, truth = world(4, captions=400, repeats=1)
    result = estimate(real, synthetic=synthetic, truth=truth)
    assert abs(deviation(result.noise, NOISE + 2 * DIVERSITY)) < 4
    assert abs(deviation(result.teacher_gap, GAP + 2 * DIVERSITY)) < 4


def test_without_diversity_pairs_give_the_noise_itself():
    real, synthetic, truth = world(5, repeats=1, diversity=0.0)
    result = estimate(real, synthetic=synthetic, truth=truth)
    assert result.teacher_gap.value == pytest.approx(GAP)
    assert abs(deviation(result.noise, NOISE)) < 4


def test_repeat_variance_by_hand():
    groups = {"a": [[0.0], [2.0]], "b": [[1.0], [1.0], [4.0]], "alone": [[9.0]]}
    result = repeat_variance(groups)
    assert result.value == pytest.approx((1 * 2 + 2 * 3) / 3)
    assert repeat_variance({"alone": [[9.0]]}) is None


def test_mean_squared_gap_by_hand():
    result = mean_squared_gap([[1.0, 3.0], [0.0, 0.0]], [[0.0, 3.0], [0.0, 1.0]])
    assert result.value == pytest.approx(0.5)
    assert mean_squared_gap([[0.0], [2.0]], [[0.0], [0.0]]).standard_error == pytest.approx(2.0)


def test_noise_gain_is_parameters_per_sample():
    """Least squares with 5 parameters on 20 samples takes over 5/20 of the label noise."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(20, 5))
    hat = features @ np.linalg.pinv(features)
    first, second = (hat @ rng.normal(scale=np.sqrt(NOISE), size=(20, 4000)) for _ in range(2))
    assert noise_gain(first.T, second.T, noise=NOISE).value == pytest.approx(0.25, rel=0.05)


def test_missing_truth_is_named():
    real, synthetic, truth = world(0, captions=3)
    with pytest.raises(ValueError, match="none of 3 synthetic captions"):
        estimate(real, synthetic=synthetic, truth={"elsewhere": truth["caption 0"]})
    single = {f"x{caption}": images[:1] for caption, images in real.items()}
    with pytest.raises(ValueError, match="fewer than two repeat"):
        estimate(single, synthetic=synthetic, truth=truth)


def test_one_pair_is_too_few():
    with pytest.raises(ValueError, match="expected 2 or more"):
        mean_squared_gap([[1.0]], [[0.0]])


# --- advice ------------------------------------------------------------------------------------------------------


def given(noise, gap, error=0.0):
    values = [Estimate(value=v, standard_error=error, basis="a test") for v in (noise, gap)]
    return Estimates(noise=values[0], teacher_gap=values[1], teacher_bias=values[1])


def test_advice_is_the_closed_form_in_predictions():
    advice = advise(given(0.5, 0.1), gain=0.2)
    assert advice.best.share == pytest.approx(0.2 * (0.5 - 0.1) / (2 * 0.1 * (1 - 0.2)))
    assert advice.reasons[0].startswith("Train on 50% synthetic images: expected error 0.08")


def test_the_likely_range_is_that_of_the_estimates():
    advice = advise(given(0.5, 0.1, error=0.01), gain=0.2)
    best = advice.best
    # To first order: noise on its own, gap and bias together, in logarithms.
    by_noise = best.sensitivity.noise * 0.01 / 0.5
    by_teacher = (best.sensitivity.teacher_gap + best.sensitivity.teacher_bias) * 0.01 / 0.1
    half = 1.645 * np.hypot(by_noise, by_teacher)
    np.testing.assert_allclose(np.subtract(advice.likely, best.share), [-half, half], rtol=0.25)


def test_a_negative_estimate_counts_as_zero_and_says_so():
    advice = advise(given(0.3, -0.01))
    assert advice.best.share == 1
    assert any("counts as 0" in reason for reason in advice.reasons)


def test_advice_that_the_data_do_not_settle_says_so():
    assert any("too wide to rely on" in reason for reason in advise(given(0.3, 0.29, error=0.1)).reasons)


def test_a_share_next_to_an_end_is_not_rounded_to_it():
    advice = advise(given(0.101, 0.1), gain=0.2)
    assert 0 < advice.best.share < 0.005
    assert advice.reasons[0].startswith("Train on less than 1% synthetic images")


def test_exact_numbers_claim_no_range():
    assert not any("draws" in reason for reason in advise(given(0.3, 0.1)).reasons)
    assert any("draws" in reason for reason in advise(given(0.3, 0.1, error=0.1)).reasons)


def test_a_gain_of_zero_is_refused():
    with pytest.raises(ValueError, match="gain is 0"):
        advise(given(0.3, 0.1), gain=0)

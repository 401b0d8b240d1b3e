"""Statistics against closed forms, enumeration, scipy, and simulation of what an interval promises."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from urae.statistics import by_prompt, compare, holm, mean, sign_test, wilson
from urae.statistics import intervals as statistics
from urae.statistics.intervals import adjusted, agreed, least_prompts


def named(values) -> dict[str, float]:
    return {f"prompt {i}": float(value) for i, value in enumerate(values)}


def test_pictures_of_a_prompt_are_averaged_before_prompts_are():
    assert by_prompt(["a", "b", "a"], [1, 10, 3]) == {"a": 2.0, "b": 10.0}


def test_the_bootstrap_agrees_with_enumeration_of_every_resample():
    values = np.array([0.0, 1.0, 3.0, 4.0, 8.0, 9.0])
    every = np.array(list(itertools.product(values, repeat=6))).mean(axis=1)
    tail = stats.norm.cdf(-np.sqrt(6 / 5) * stats.t.ppf(0.975, 5))
    low, high = np.quantile(every, [tail, 1 - tail])
    result = mean(named(values), resamples=200_000)
    assert result.value == pytest.approx(values.mean())
    # Means come in steps of 1/6.
    assert result.low == pytest.approx(low, abs=0.17)
    assert result.high == pytest.approx(high, abs=0.17)


@pytest.mark.parametrize("freedom", [5, 9, 30, 300])
def test_the_quantile_of_student_agrees_with_scipy(freedom):
    assert statistics._student(stats.norm.ppf(0.975), freedom) == pytest.approx(
        stats.t.ppf(0.975, freedom), rel=3e-3
    )


def coverage(samples: np.ndarray, truth: float, *, widened: bool) -> float:
    """How many percentile intervals of the means of the rows (repeats, n) hold the truth."""
    num = samples.shape[1]
    tail = statistics.expanded_tail(num, 0.95) if widened else 0.025
    weights = np.random.default_rng(1).multinomial(num, np.full(num, 1 / num), size=999) / num
    low, high = np.quantile(samples @ weights.T, [tail, 1 - tail], axis=1)
    return float(((low <= truth) & (truth <= high)).mean())


@pytest.mark.parametrize(("draw", "lowest"), [("normal", 0.93), ("exponential", 0.89)])
@pytest.mark.parametrize("count", [8, 40])
def test_a_95_percent_interval_holds_the_truth_about_95_times_in_100(draw, lowest, count):
    """Over ten seeds; a single one is off by up to two in a hundred."""
    truth = {"normal": 0.0, "exponential": 1.0}[draw]
    samples = [getattr(np.random.default_rng(seed), draw)(size=(500, count)) for seed in range(10)]
    assert lowest <= coverage(np.concatenate(samples), truth, widened=True) <= 0.96


def test_a_plain_percentile_interval_would_fall_short_of_that():
    """Eight prompts: the reason for the widened tails."""
    samples = np.random.default_rng(7).normal(size=(5000, 8))
    assert coverage(samples, 0.0, widened=False) == pytest.approx(0.88, abs=0.015)
    assert coverage(samples, 0.0, widened=True) == pytest.approx(0.94, abs=0.015)


@pytest.mark.parametrize("num", [6, 8, 20])
@pytest.mark.parametrize("share", [0.5, 0.8, 0.95, 0.99])
def test_an_interval_of_a_share_holds_the_truth_however_few_the_prompts(num, share):
    """Near 1 all of few prompts agree most of the time; an interval without width would hold nothing."""
    chance = stats.binom.pmf(np.arange(num + 1), num, share)
    found = [mean(named(np.arange(num) < k), bounds=(0, 1), resamples=2000) for k in range(num + 1)]
    covered = [interval.low <= share <= interval.high for interval in found]
    assert chance @ covered > 0.93


def test_the_same_seed_gives_the_same_interval_and_another_does_not():
    scores = named(np.random.default_rng(0).normal(size=20))
    assert mean(scores) == mean(scores)
    assert mean(scores).low != mean(scores, seed=1).low


def test_equal_values_have_an_interval_of_no_width_unless_they_are_shares():
    result = mean(named([0.1] * 9))
    assert (result.low, result.high) == (0.1, 0.1)
    all_won = mean(named([1] * 6), bounds=(0, 1))
    assert (round(all_won.low, 2), all_won.high) == (0.61, 1)
    percent = mean(named([100] * 6), bounds=(0, 100))
    assert (round(percent.low), percent.high) == (61, 100)
    ties = mean(named([0.5] * 6), bounds=(0, 1))
    assert (ties.low, ties.high) == pytest.approx((0.5 * all_won.low, 1 - 0.5 * all_won.low))


def test_a_difference_of_shares_that_all_prompts_agree_on_has_a_width_too():
    result = compare(named([1] * 6), named([0] * 6), bounds=(0, 1))
    assert 0 < result.difference.low < 0.3
    assert result.difference.high == 1
    assert result.real


@pytest.mark.parametrize("value", [0, 0.3, 1])
def test_an_interval_of_what_is_agreed_holds_the_worst_that_other_prompts_can_be(value):
    """Eight of eight prompts: by Wilson's interval a third of all may be others."""
    share = stats.binomtest(8, 8).proportion_ci(method="wilson").low
    found = agreed(value, (0, 1), count=8)
    assert (found.low, found.high) == pytest.approx((share * value, share * value + 1 - share))
    scaled = agreed(10 * value - 2, (-2, 8), count=8)
    assert (scaled.low, scaled.high) == pytest.approx((10 * found.low - 2, 10 * found.high - 2))


def test_memory_does_not_grow_with_resamples(monkeypatch):
    values = np.random.default_rng(0).normal(size=50)
    whole = statistics._resampled_means(values, 400, 3)
    monkeypatch.setattr(statistics, "_CHUNK", 1000)
    assert np.array_equal(statistics._resampled_means(values, 400, 3), whole)


@pytest.mark.parametrize(("successes", "trials"), [(0, 10), (3, 10), (181, 340), (10, 10)])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_wilson_agrees_with_scipy(successes, trials, confidence):
    expected = stats.binomtest(successes, trials).proportion_ci(confidence, method="wilson")
    result = wilson(successes, trials, confidence=confidence)
    assert (result.low, result.high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert 0 <= result.low <= result.value <= result.high <= 1


def test_wilson_of_the_papers_user_study():
    """Table 3: 181 of 340 votes."""
    result = wilson(181, 340)
    assert (round(result.low, 3), round(result.high, 3)) == (0.479, 0.585)


@pytest.mark.parametrize(
    ("above", "below"), [(0, 0), (5, 0), (6, 0), (3, 9), (40, 60), (900, 1100), (9_800, 10_200), (8_000, 9)]
)
def test_the_sign_test_agrees_with_scipy(above, below):
    expected = stats.binomtest(above, above + below).pvalue if above + below else 1.0
    assert sign_test(above, below) == pytest.approx(expected, rel=1e-9)


def test_the_fewest_prompts_allowed_are_the_fewest_that_can_be_significant():
    assert sign_test(statistics.MIN_PROMPTS - 1, 0) > 0.05 >= sign_test(statistics.MIN_PROMPTS, 0)


@pytest.mark.parametrize("num", [1, 3, 6, 15, 45])
def test_the_fewest_prompts_for_a_mark_are_those_whose_best_test_passes_the_correction(num):
    least = least_prompts(num)
    assert num * sign_test(least, 0) <= 0.05
    assert least == statistics.MIN_PROMPTS or num * sign_test(least - 1, 0) > 0.05


def test_a_paired_difference_is_much_tighter_than_two_means():
    """Prompts differ by 10, the candidate by 1 on each: the pairs show what the means cannot."""
    rng = np.random.default_rng(0)
    base = rng.normal(scale=10, size=30)
    better = base + 1 + rng.normal(scale=0.1, size=30)
    result = compare(named(better), named(base))
    assert 0.9 < result.difference.low < result.difference.value < result.difference.high < 1.1
    assert (result.above, result.below, result.equal) == (30, 0, 0)
    assert result.real
    assert mean(named(better)).low < mean(named(base)).high


def test_swapping_the_candidates_swaps_the_signs():
    rng = np.random.default_rng(1)
    a, b = named(rng.normal(size=12)), named(rng.normal(size=12))
    forth, back = compare(a, b), compare(b, a)
    assert forth.difference.value == pytest.approx(-back.difference.value)
    assert (forth.above, forth.p_value) == (back.below, back.p_value)


def test_pairs_are_matched_by_prompt_not_by_order():
    scores = named(range(8))
    shuffled = dict(reversed(scores.items()))
    assert compare(scores, shuffled).equal == 8


def test_one_huge_prompt_is_no_real_difference():
    """The mean rises by 100 and seven of eight prompts fall: interval and test disagree."""
    result = compare(named([-1] * 7 + [800]), named([0] * 8))
    assert result.difference.value > 0
    assert not result.real


def test_null_differences_are_rarely_called_real():
    rng = np.random.default_rng(5)
    pairs = rng.normal(size=(200, 2, 20))
    alarms = [compare(named(a), named(b), resamples=1000).real for a, b in pairs]
    assert np.mean(alarms) <= 0.05


def test_holm_by_hand_and_in_any_order():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.04, 0.005, 0.03, 0.01]) == pytest.approx([0.06, 0.02, 0.06, 0.03])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_holm_is_the_closed_test_procedure_with_bonferroni():
    """Definition: an adjusted p-value is the largest Bonferroni p over all sets of hypotheses that hold it."""
    p = np.random.default_rng(2).uniform(size=5) ** 2
    sets = [s for n in range(1, 6) for s in itertools.combinations(range(5), n)]
    closed = [max(min(1, len(s) * min(p[list(s)])) for s in sets if i in s) for i in range(5)]
    assert holm(p.tolist()) == pytest.approx(closed)


def test_several_baselines_are_corrected_for_their_number():
    base = np.zeros(6)
    baselines = {name: named(base) for name in "abc"}
    alone = compare(named(base + 1), named(base))
    several = adjusted({name: compare(named(base + 1), baseline) for name, baseline in baselines.items()})
    assert alone.p_adjusted == alone.p_value == 2 / 64
    assert [result.p_adjusted for result in several.values()] == pytest.approx([3 * 2 / 64] * 3)
    assert alone.real
    assert not several["a"].real


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mean(named([1, 2, 3])), "there are 3 different prompts: expected at least 6"),
        (lambda: mean({}), "there are 0 different prompts"),
        (lambda: mean(named([1, 2, 3, float("nan"), 5, 6])), "1 of 6 prompts .* 'prompt 3'"),
        (lambda: mean(named([1, 2, 3, float("inf"), 5, 6])), "no finite value"),
        (
            lambda: compare(named(range(6)), named(range(7))),
            "0 only in the candidate, 1 only in the baseline",
        ),
        (lambda: compare(named(range(6)), {**named(range(6)), "prompt 0": float("nan")}), "no finite value"),
        (lambda: mean(named(range(6)), confidence=95), "confidence is 95"),
        (lambda: mean(named(range(6)), resamples=100), "100 resamples do not reach .* at least 4"),
        (lambda: wilson(3, 2), "3 of 2"),
        (lambda: wilson(0, 0), "0 of 0"),
        (lambda: holm([0.5, 1.5]), r"expected numbers in \[0, 1\]"),
    ],
)
def test_errors_say_what_was_expected(call, message):
    with pytest.raises(ValueError, match=message):
        call()

"""Bradley-Terry against a closed form, a general optimiser, and simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from urae.statistics import bradley_terry, rank


def test_two_candidates_have_a_closed_form():
    strengths = bradley_terry(np.array([[0, 30], [10, 0]]))
    assert strengths == pytest.approx([np.log(3) / 2, -np.log(3) / 2])


def test_it_maximises_the_likelihood():
    wins = np.array([[0, 7, 3, 9], [4, 0, 6, 2.5], [5, 1, 0, 8], [1, 2.5, 3, 0]])

    def loss(s):
        return (wins * np.logaddexp(0, s[None, :] - s[:, None])).sum()

    best = minimize(loss, np.zeros(4), tol=1e-12).x
    assert bradley_terry(wins) == pytest.approx(best - best.mean(), abs=1e-5)


@pytest.mark.parametrize("num", [3, 10])
def test_one_that_nearly_always_wins_over_many_prompts_does_not_stop_it_early(num):
    """The strengths explain the wins: each candidate is expected to have as many as it has."""
    wins = np.triu(np.full((num, num), 300.0), 1) + 0.05 * (1 - np.eye(num))
    strengths = bradley_terry(wins)
    expected = ((wins + wins.T) / (1 + np.exp(strengths[None, :] - strengths[:, None]))).sum(axis=1)
    assert expected == pytest.approx(wins.sum(axis=1), abs=1e-6)
    assert strengths.mean() == pytest.approx(0, abs=1e-9)


def test_a_batch_is_each_by_itself():
    wins = np.random.default_rng(0).integers(1, 9, size=(5, 3, 3)) * (1 - np.eye(3))
    assert bradley_terry(wins) == pytest.approx(np.stack([bradley_terry(w) for w in wins]), abs=1e-7)


@pytest.mark.parametrize(
    "wins",
    [[[0, 5], [0, 0]], [[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0]]],
    ids=["never won", "apart"],
)
def test_games_without_a_finite_answer_are_refused(wins):
    with pytest.raises(ValueError, match="chain of wins"):
        bradley_terry(np.array(wins))


def test_a_star_of_comparisons_ranks_candidates_that_never_met():
    prompts = [f"p{i}" for i in range(40)]
    outcomes = {
        ("good", "base"): {p: float(i % 4 != 0) for i, p in enumerate(prompts)},
        ("bad", "base"): {p: float(i % 4 == 0) for i, p in enumerate(prompts)},
    }
    ranking = rank(outcomes)
    assert list(ranking) == ["good", "base", "bad"]
    assert ranking["good"].low > 0 > ranking["bad"].high
    assert ranking["good"].value - ranking["bad"].value == pytest.approx(2 * np.log(3), rel=0.02)


def test_a_candidate_that_wins_everything_stays_finite():
    outcomes = {pair: dict.fromkeys("abcdefgh", 1.0) for pair in (("x", "y"), ("y", "z"), ("x", "z"))}
    ranking = rank(outcomes, resamples=400)
    assert list(ranking) == ["x", "y", "z"]
    assert np.isfinite([v for s in ranking.values() for v in (s.value, s.low, s.high)]).all()


def test_strengths_that_all_prompts_agree_on_have_an_interval():
    """Twelve wins of twelve may be those of one who wins 75 of 100 times: 1.1 log-odds apart, 0.55 from the middle."""
    found = rank({("x", "y"): dict.fromkeys("abcdefghijkl", 1.0)})
    assert 0.3 < found["x"].low < 0.7
    assert found["x"].high == found["x"].value
    assert rank({("x", "y"): dict.fromkeys("abcdef", 1.0)})["x"].low < found["x"].low
    ties = rank({("x", "y"): dict.fromkeys("abcdef", 0.5)})
    assert ties["x"].low < -0.3 < 0.3 < ties["x"].high


def test_a_single_prompt_ranks_nothing():
    with pytest.raises(ValueError, match="there are 1 different prompts: expected at least 6"):
        rank({("x", "y"): {"a": 1.0}})


def test_intervals_hold_the_true_strengths():
    truth = np.array([0.8, 0.0, -0.8])
    names, rng = "xyz", np.random.default_rng(3)
    covered = []
    for repeat in range(25):
        outcomes = {}
        for i, j in ((0, 1), (0, 2), (1, 2)):
            chance = 1 / (1 + np.exp(truth[j] - truth[i]))
            outcomes[names[i], names[j]] = {f"p{n}": float(w) for n, w in enumerate(rng.random(60) < chance)}
        ranking = rank(outcomes, resamples=250, seed=repeat)
        covered += [ranking[n].low <= t <= ranking[n].high for n, t in zip(names, truth, strict=True)]
    assert 0.85 <= np.mean(covered) <= 0.99

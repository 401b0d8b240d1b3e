"""Distances of sets: against scipy and plain loops, for many and for few rows, and their intervals."""

import numpy as np
import pytest
import scipy.linalg

from urae.statistics import cmmd, frechet, kid


def sample(num: int, dims: int, seed: int, shift: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(dims, dims)) / dims**0.5
    return rng.normal(shift, 1, size=(num, dims)) @ mixing + rng.normal(0, 0.1, size=(num, dims))


def pictures(rows: np.ndarray, each: int = 1) -> list[np.ndarray]:
    return list(rows.reshape(-1, each, rows.shape[1]))


def dense_frechet(x: np.ndarray, y: np.ndarray) -> float:
    """By scipy's matrix root where covariances have full rank, by eigenvalues of their product where not."""
    s1, s2 = np.cov(x.T), np.cov(y.T)
    if min(len(x), len(y)) > x.shape[1]:
        cross = np.trace(scipy.linalg.sqrtm(s1 @ s2)).real
    else:
        cross = np.sqrt(np.maximum(scipy.linalg.eigvals(s1 @ s2).real, 0)).sum()
    return float(((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(s1) + np.trace(s2) - 2 * cross)


@pytest.mark.parametrize(("num", "others", "dims"), [(200, 150, 6), (12, 9, 30), (12, 90, 30), (90, 12, 30)])
def test_frechet_is_that_of_scipy_for_many_and_for_few_rows(num, others, dims):
    x, y = sample(num, dims, 0, 0.5), sample(others, dims, 1)
    assert frechet(pictures(x), pictures(y)).value == pytest.approx(dense_frechet(x, y), rel=1e-6)


def test_frechet_of_a_set_with_itself_is_zero():
    x = pictures(sample(20, 40, 0))
    assert abs(frechet(x, x).value) < 1e-9


def test_few_rows_bias_the_frechet_distance_and_not_kid():
    """Two samples of one distribution: the first distance falls with their size, the other is about 0 at any."""
    small = [frechet(pictures(sample(25, 20, s)), pictures(sample(25, 20, s + 50))).value for s in range(8)]
    large = [frechet(pictures(sample(800, 20, s)), pictures(sample(800, 20, s + 50))).value for s in range(2)]
    kids = [kid(pictures(sample(25, 20, s)), pictures(sample(25, 20, s + 50))).value for s in range(40)]
    assert np.mean(small) > 10 * np.mean(large)
    assert abs(np.mean(kids)) < 3 * np.std(kids) / np.sqrt(len(kids))


def test_kid_is_the_unbiased_double_sum():
    x, y = sample(7, 5, 0, 0.5), sample(6, 5, 1)

    def kernel(a, b):
        return (a @ b / 5 + 1) ** 3

    within = [
        np.mean([kernel(a, b) for i, a in enumerate(z) for j, b in enumerate(z) if i != j]) for z in (x, y)
    ]
    across = np.mean([kernel(a, b) for a in x for b in y])
    assert kid(pictures(x), pictures(y)).value == pytest.approx(sum(within) - 2 * across)


def test_cmmd_is_the_biased_double_sum_of_the_gaussian_kernel():
    x, y = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in (sample(7, 5, 0, 0.5), sample(6, 5, 1)))

    def mean(a, b):
        return np.mean([np.exp(-((p - q) ** 2).sum() / 200) for p in a for q in b])

    expected = 1000 * (mean(x, x) + mean(y, y) - 2 * mean(x, y))
    assert cmmd(pictures(x), pictures(y)).value == pytest.approx(expected)


@pytest.mark.parametrize("distance", [frechet, kid, cmmd])
def test_crops_count_for_the_value_and_pictures_for_the_interval(distance):
    """Four equal crops of each picture say no more than one, and pretend to say more if they are resampled alone."""
    x, y = sample(40, 6, 0, 0.5), sample(40, 6, 1)
    crops = np.repeat(x, 4, axis=0)
    together, alone = distance(pictures(crops, 4), pictures(y)), distance(pictures(crops), pictures(y))
    assert together.value == pytest.approx(alone.value)
    assert together.high - together.low > 1.5 * (alone.high - alone.low)
    assert (together.count, alone.count) == (40, 160)


@pytest.mark.parametrize("distance", [frechet, kid])
def test_the_interval_is_as_wide_as_fresh_candidates_scatter(distance):
    reference = pictures(sample(300, 4, 1000))
    found = [distance(pictures(sample(60, 4, s, 0.6)), reference) for s in range(40)]
    scatter = np.std([interval.value for interval in found], ddof=1)
    claimed = np.mean([(interval.high - interval.low) / 2 / 1.96 for interval in found])
    assert 0.7 < claimed / scatter < 1.4


@pytest.mark.parametrize("distance", [frechet, kid, cmmd])
def test_one_picture_has_no_distance_however_many_its_crops(distance):
    crops = [sample(8, 3, 0)]
    with pytest.raises(ValueError, match="candidate has 1 pictures: expected at least two"):
        distance(crops, pictures(sample(5, 3, 1)))
    with pytest.raises(ValueError, match="reference has 1 pictures: expected at least two"):
        distance(pictures(sample(5, 3, 1)), crops)


@pytest.mark.parametrize("distance", [frechet, kid, cmmd])
@pytest.mark.parametrize("each", [1, 4])
@pytest.mark.parametrize("num", [2, 3, 5, 6, 7])
def test_few_pictures_have_a_distance_and_from_six_on_an_interval(distance, each, num):
    """Two of two draws are the same picture half of the time, and a pair of different ones is what KID asks for."""
    found = [
        distance(pictures(sample(num * each, 3, s), each), pictures(sample(9, 3, 99)), seed=s)
        for s in range(9)
    ]
    for interval in found:
        assert np.isfinite([interval.value, interval.low, interval.high]).all()
        assert (interval.low < interval.high) == (num >= 6)


def test_distances_that_cannot_be_negative_have_intervals_that_are_not():
    x = [row / np.linalg.norm(row) for row in pictures(sample(12, 5, 0))]
    y = [row / np.linalg.norm(row) for row in pictures(sample(12, 5, 1))]
    assert cmmd(x, x).value == pytest.approx(0, abs=1e-9)
    for found in (cmmd(x, x), cmmd(x, y), frechet(x, x), frechet(x, y)):
        assert 0 <= found.low <= found.value <= found.high
    assert kid(x, y).low < 0

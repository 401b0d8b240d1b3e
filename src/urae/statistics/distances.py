"""How far one set of features lies from another: Frechet distance, KID and CMMD, each with its spread over pictures.

Features come as one (rows, dims) array a picture; a picture's crops are not independent, so whole pictures are
resampled. Drawing pictures twice raises each of these distances, so the bootstrap gives the spread and not the place:
an interval is the value and a normal quantile of the draws' standard deviation. The reference stays as it is: the
interval says how the number would vary with other pictures of the candidate, against this very reference. Fewer than
six pictures have a distance, and no interval.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist

import numpy as np

from urae.statistics.intervals import CONFIDENCE, MIN_PROMPTS, Interval

__all__ = ["cmmd", "frechet", "kid"]

RESAMPLES = 50
"""A standard deviation from 50 draws is right to 10%."""
CHUNK = 2048
"""Rows of a kernel matrix held at once."""
CMMD_SIGMA = 10.0
CMMD_SCALE = 1000.0

Features = Sequence[np.ndarray]


def frechet(features: Features, reference: Features, *, seed: int = 0) -> Interval:
    """Frechet distance of two normal distributions with the sets' means and covariances (Heusel et al., 2017).

    |m1 - m2|^2 + tr S1 + tr S2 - 2 tr sqrt(S1 S2), in float64. The last trace is the nuclear norm of A B^T with
    centred features A, B over sqrt(rows - 1), which is exact for any number of rows and takes no matrix root.
    """
    starts, rows, others = _stacked(features, reference)
    centre = others.mean(axis=0)
    rows, others = rows - centre, others - centre
    root = np.asarray(np.linalg.qr(others / math.sqrt(len(others) - 1), mode="r"))
    projected, squares, trace = rows @ root.T, (rows**2).sum(axis=1), (root**2).sum()

    def distance(chosen: np.ndarray, nuclear_norm: Callable[[np.ndarray], float]) -> float:
        own, part, count = rows[chosen].mean(axis=0), projected[chosen], len(chosen)
        own_trace = (squares[chosen].sum() - count * (own**2).sum()) / (count - 1)
        cross = nuclear_norm((part - part.mean(axis=0)) / math.sqrt(count - 1))
        return float((own**2).sum() + own_trace + trace - 2 * cross)

    rng, count = np.random.default_rng(seed), len(features)
    rows_of = np.split(np.arange(len(rows)), starts[1:])
    resampled = ([rows_of[i] for i in rng.integers(count, size=count)] for _ in range(RESAMPLES))
    draws = [distance(np.concatenate(chosen), _quick_nuclear_norm) for chosen in resampled]
    value = max(0.0, distance(np.arange(len(rows)), _nuclear_norm))
    return _interval(value, draws, count, 0.0)


def kid(features: Features, reference: Features, *, seed: int = 0) -> Interval:
    """Kernel inception distance (Binkowski et al., 2018): unbiased squared MMD with kernel (x y / dims + 1)^3.

    Over all rows, not over random subsets. About 0 for two samples of one distribution, and then often negative.
    """
    dims = features[0].shape[1]
    return _squared_mmd(features, reference, lambda x, y: (x @ y.T / dims + 1) ** 3, True, 1.0, seed)


def cmmd(features: Features, reference: Features, *, seed: int = 0) -> Interval:
    """CMMD (Jayasumana et al., 2024): 1000 times the squared MMD of CLIP embeddings of length 1, Gaussian kernel of
    width 10, each picture's likeness to itself included."""

    def kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        distances = (x**2).sum(axis=1)[:, None] + (y**2).sum(axis=1) - 2 * (x @ y.T)
        return np.exp(-np.maximum(distances, 0) / (2 * CMMD_SIGMA**2))

    return _squared_mmd(features, reference, kernel, False, CMMD_SCALE, seed)


Kernel = Callable[[np.ndarray, np.ndarray], np.ndarray]


def _squared_mmd(
    features: Features, reference: Features, kernel: Kernel, unbiased: bool, scale: float, seed: int
) -> Interval:
    """Kernel sums by picture come first; every resample is then a weighting of pictures."""
    starts, rows, others = _stacked(features, reference)
    sizes = np.diff([*starts, len(rows)])
    within, across = _kernel_sums(rows, starts, kernel, unbiased), _cross_sums(rows, starts, others, kernel)
    pairs = np.outer(sizes, sizes) - (np.diag(sizes) if unbiased else 0)
    among_others = _kernel_sums(others, np.array([0]), kernel, unbiased).item()
    constant = among_others / (len(others) * (len(others) - unbiased))

    def value(weights: np.ndarray) -> float:
        own = (weights @ within @ weights) / (weights @ pairs @ weights)
        cross = (weights @ across) / (weights @ sizes * len(others))
        return scale * float(own + constant - 2 * cross)

    count = len(features)
    weights = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
    # One picture drawn every time has no pair of different ones.
    draws = [value(row) for row in weights if (row > 0).sum() > 1]
    lowest = -math.inf if unbiased else 0.0
    return _interval(max(lowest, value(np.ones(count))), draws, count, lowest)


def _kernel_sums(rows: np.ndarray, starts: np.ndarray, kernel: Kernel, unbiased: bool) -> np.ndarray:
    """(pictures, pictures): sums of the kernel over their rows, a row with itself left out if `unbiased`."""
    owner = np.repeat(np.arange(len(starts)), np.diff([*starts, len(rows)]))
    sums = np.zeros((len(starts), len(starts)))
    for begin in range(0, len(rows), CHUNK):
        block = kernel(rows[begin : begin + CHUNK], rows)
        if unbiased:
            places = np.arange(len(block))
            block[places, begin + places] = 0
        np.add.at(sums, owner[begin : begin + CHUNK], np.add.reduceat(block, starts, axis=1))
    return sums


def _cross_sums(rows: np.ndarray, starts: np.ndarray, others: np.ndarray, kernel: Kernel) -> np.ndarray:
    """(pictures,): sums of the kernel of their rows with all rows of the reference."""
    by_row = [kernel(rows[begin : begin + CHUNK], others).sum(axis=1) for begin in range(0, len(rows), CHUNK)]
    return np.add.reduceat(np.concatenate(by_row), starts)


def _stacked(features: Features, reference: Features) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """First row of each picture, all rows, all rows of the reference; float64."""
    for name, given in (("candidate", features), ("reference", reference)):
        if len(given) < 2:
            raise ValueError(f"the {name} has {len(given)} pictures: expected at least two for a distance")
    starts = np.cumsum([0, *(len(rows) for rows in features[:-1])])
    return starts, np.concatenate(features).astype(np.float64), np.concatenate(reference).astype(np.float64)


def _nuclear_norm(matrix: np.ndarray) -> float:
    return float(np.linalg.svd(matrix, compute_uv=False).sum())


def _quick_nuclear_norm(matrix: np.ndarray) -> float:
    """To six digits, several times faster: from the eigenvalues of the smaller Gram matrix."""
    gram = matrix @ matrix.T if len(matrix) < matrix.shape[1] else matrix.T @ matrix
    return float(np.sqrt(np.maximum(np.linalg.eigvalsh(gram), 0)).sum())


def _interval(value: float, draws: Sequence[float], count: int, lowest: float) -> Interval:
    spread = float(np.std(draws, ddof=1)) if count >= MIN_PROMPTS else 0.0
    half = NormalDist().inv_cdf((1 + CONFIDENCE) / 2) * spread
    return Interval(
        value=value, low=max(lowest, value - half), high=value + half, count=count, confidence=CONFIDENCE
    )

"""A sign test that may be looked at after every pair.

A test of a fixed size that is looked at again and again finds a difference sooner or later. This one bets on the signs
by a mixture of coins; under the null hypothesis the stake grows beyond 1 / alpha, ever, with a chance of alpha at
most (Ville's inequality; H. Robbins, "Statistical methods related to the law of the iterated logarithm", 1970).
"""

from __future__ import annotations

import math

__all__ = ["evidence"]


def evidence(above: int, below: int) -> float:
    """What a stake of 1 has become that was bet on a pair's being above rather than below, after so many of either.

    The mean over q, uniform in [1/2, 1], of (2q)^above (2 - 2q)^below. Equal pairs are left out.
    """
    num = above + below
    tail = sum(math.comb(num + 1, k) for k in range(above + 1)) / 2 ** (num + 1)
    return tail * 2 ** (num + 1) / ((num + 1) * math.comb(num, above))

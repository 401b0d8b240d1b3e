"""Several adapters in one file, exactly; and one adapter at a lower rank, with the error that costs.

A weighted sum of products is a product of stacked factors, so a merge loses nothing and its ranks add up. Truncation
keeps the best approximation of every module's update, by an SVD of the product of the factors' small QR parts.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from urae.adapters.adapter import Adapter, Own
from urae.adapters.base import Base
from urae.adapters.factors import Pair, product_norm, stacked, truncated
from urae.errors import WrongBase
from urae.resolution import ResolutionPolicy

__all__ = ["Truncation", "merge", "truncate", "weighted_sum"]


def merge(
    adapters: Sequence[Adapter],
    *,
    weights: Sequence[float] = (),
    policy: ResolutionPolicy | Own | None = "own",
    allow_other_base: bool = False,
) -> Adapter:
    """The weighted sum of the adapters' updates as one adapter, exactly; `weights` are 1 by default.

    A module's rank is the sum of its ranks, and a warning says when that is more than before. Policies that differ
    need one named by `policy` (None for none), and adapters of different bases `allow_other_base`.
    """
    if len(adapters) < 2:
        raise ValueError(f"{len(adapters)} adapter given: expected two or more to merge")
    weights = tuple(map(float, weights)) or (1.0,) * len(adapters)
    if len(weights) != len(adapters):
        raise ValueError(f"{len(weights)} weights for {len(adapters)} adapters: give one each, or none")
    if not all(map(math.isfinite, weights)):
        raise ValueError(f"the weights are {', '.join(map(str, weights))}: expected finite numbers")
    merged = replace(
        weighted_sum(adapters, weights),
        policy=_common_policy(adapters) if policy == "own" else policy,
        recipe={"merged": [_provenance(*each) for each in zip(adapters, weights, strict=True)]},
        base=_common_base(adapters, allow_other_base),
    )
    _warn_of_rank(merged, adapters)
    return merged


def weighted_sum(adapters: Sequence[Adapter], weights: Sequence[float]) -> Adapter:
    """The weights of `merge` alone: nothing is checked, and nothing said of where they come from."""
    return Adapter(
        factors=_weighted_factors(adapters, weights), differences=_weighted_differences(adapters, weights)
    )


@dataclass(frozen=True, kw_only=True)
class Truncation:
    """An adapter of lower rank and what it lost."""

    adapter: Adapter
    error: float
    """Frobenius norm of what was left out over the norm of the whole update, over all modules."""
    worst: tuple[str, float]
    """The module with the largest relative error, and that error."""


def truncate(adapter: Adapter, *, rank: int) -> Truncation:
    """The adapter with every module's update replaced by its best approximation of at most `rank`."""
    if adapter.is_full:
        raise ValueError("a full adapter has no rank to truncate: its file holds whole differences")
    if rank < 1:
        raise ValueError(f"rank is {rank}: expected 1 or more")
    kept, lost = {}, {}
    for name, pair in adapter.factors.items():
        kept[name], lost[name] = truncated(pair, rank)
    norms = {name: product_norm(pair) for name, pair in adapter.factors.items()}
    worst = max(norms, key=lambda name: _ratio(lost[name], norms[name]))
    recipe = {"truncated": {"rank": rank, "of": adapter.hash}, "recipe": dict(adapter.recipe)}
    return Truncation(
        adapter=replace(adapter, factors=kept, spec=None, recipe=recipe),
        error=_ratio(math.hypot(*lost.values()), math.hypot(*norms.values())),
        worst=(worst, _ratio(lost[worst], norms[worst])),
    )


def _weighted_factors(adapters: Sequence[Adapter], weights: Sequence[float]) -> dict[str, Pair]:
    scaled = [
        {name: (A, B * weight) for name, (A, B) in adapter.factors.items()}
        for adapter, weight in zip(adapters, weights, strict=True)
    ]
    return stacked(*scaled)


def _weighted_differences(adapters: Sequence[Adapter], weights: Sequence[float]) -> dict[str, Tensor]:
    total: dict[str, Tensor] = {}
    for adapter, weight in zip(adapters, weights, strict=True):
        for name, difference in adapter.differences.items():
            total[name] = total[name] + weight * difference if name in total else weight * difference
    return total


def _common_policy(adapters: Sequence[Adapter]) -> ResolutionPolicy | None:
    first = adapters[0].policy
    if any(adapter.policy != first for adapter in adapters):
        described = "; ".join(adapter.policy.to_json() if adapter.policy else "none" for adapter in adapters)
        raise ValueError(
            f"the adapters have different policies ({described}): name the one to keep with policy="
        )
    return first


def _common_base(adapters: Sequence[Adapter], allow_other_base: bool) -> Base | None:
    known = [adapter.base for adapter in adapters if adapter.base is not None]
    for base in known:
        if base.weights != known[0].weights and not allow_other_base:
            raise WrongBase(
                f"the adapters were made for different bases, {known[0]} and {base}: "
                "merge adapters of one base, or pass allow_other_base=True"
            )
    return known[0] if known else None


def _provenance(adapter: Adapter, weight: float) -> dict[str, Any]:
    described = adapter.metadata()
    return {
        "hash": adapter.hash,
        "weight": weight,
        **{key: described[key] for key in ("spec", "recipe", "data")},
    }


def _warn_of_rank(merged: Adapter, adapters: Sequence[Adapter]) -> None:
    before = max((_largest_rank(adapter) for adapter in adapters), default=0)
    after = _largest_rank(merged)
    if after > before:
        warnings.warn(
            f"the merged adapter has rank {after}, its parts up to {before}: truncate it where size or speed matter",
            stacklevel=3,
        )


def _largest_rank(adapter: Adapter) -> int:
    return max((A.shape[0] for A, _ in adapter.factors.values()), default=0)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole > 0 else 0.0

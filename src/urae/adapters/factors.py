"""Low-rank factors as values: A (r, in) and B (out, r) per module, the update of whose weight is B A."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["Factors", "Pair", "difference", "product_norm", "stacked", "truncated"]

Pair = tuple[Tensor, Tensor]

Factors = Mapping[str, Pair]
"""Module name -> A (r, in), B (out, r)."""


def stacked(*parts: Factors) -> dict[str, Pair]:
    """One pair per module whose product is the sum of the parts' products: A one below the other, B side by side."""
    names = dict.fromkeys(name for part in parts for name in part)
    return {
        name: (
            torch.cat([part[name][0] for part in parts if name in part]),
            torch.cat([part[name][1] for part in parts if name in part], dim=1),
        )
        for name in names
    }


def difference(trained: Pair, start: Pair) -> Pair:
    """The pair of rank 2r with product B A - B0 A0, as (B - B0) A + B0 (A - A0).

    Unlike [A; -A0] it keeps its precision in bf16, where the two large products would not cancel.
    """
    A, B = trained
    A0, B0 = start
    return torch.cat([A, A - A0]), torch.cat([B - B0, B0], dim=1)


def product_norm(pair: Pair) -> float:
    """Frobenius norm of B A, from the r x r Gram matrices."""
    A, B = (factor.double() for factor in pair)
    return float(((B.mT @ B) * (A @ A.mT)).sum().clamp(min=0).sqrt())


def truncated(pair: Pair, rank: int) -> tuple[Pair, float]:
    """The best pair of at most `rank` for the product B A, and the Frobenius norm of what it leaves out."""
    A, B = (factor.double() for factor in pair)
    if A.shape[0] <= rank:
        return pair, 0.0
    Q, R = torch.linalg.qr(B)
    P, L = torch.linalg.qr(A.mT)
    U, S, Vh = torch.linalg.svd(R @ L.mT)
    root = S[:rank].sqrt()
    kept = (root[:, None] * (Vh[:rank] @ P.mT)).float(), ((Q @ U[:, :rank]) * root).float()
    return kept, float(S[rank:].norm())

"""The r smallest (or largest) singular triplets of a weight matrix, without a full SVD.

A block Krylov iteration in fp64 on ``(W^T W)^-1`` for the smallest triplets, on ``W^T W`` for the largest. The
inverse is applied through an LU (square) or QR (rectangular) factorisation of W itself, never of ``W^T W``, which
would square the condition number. Ritz values are taken on W, and the iteration ends when a bound on the error
of the product U S V^T, from the residual and the gap to the next singular value, falls below `TOLERANCE`. Small
matrices, and the rare one that does not converge, go through the full SVD, which gives the same answer.
"""

from __future__ import annotations

import hashlib
import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from urae.errors import BadFile
from urae.io import read_weights, write_weights

__all__ = ["Kind", "Triplets", "decompose", "decompose_cached", "tensor_hash"]

Kind = Literal["smallest", "largest"]

TOLERANCE = 1e-3
"""Bound on the relative (Frobenius) error of the product U S V^T at which the iteration ends. The error itself is
typically 50 to 1000 times smaller than the bound."""

OVERSAMPLING = 16
"""Columns in a Krylov block beyond the rank."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Triplets:
    """r singular triplets of W (out x in), in descending order of S: ``W v_i = s_i u_i``."""

    U: Tensor
    """(out, r), fp64."""
    S: Tensor
    """(r,), fp64."""
    V: Tensor
    """(in, r), fp64."""

    def factors(self) -> tuple[Tensor, Tensor]:
        """A (r, in) and B (out, r) in fp32, with B A = U S V^T and S shared evenly (paper, Eq. 6)."""
        root = self.S.sqrt()
        return (self.V * root).mT.float().contiguous(), (self.U * root).float().contiguous()


def decompose(weight: Tensor, *, rank: int, kind: Kind) -> Triplets:
    """The `rank` smallest or largest singular triplets of `weight` (out, in), any floating dtype, on its device.

    The product U S V^T is within 1e-3 (Frobenius, relative) of a full fp64 SVD. It is only defined where the
    singular values s_r and s_{r+1} differ; where they coincide, one of the equally valid choices is returned.
    """
    if not 1 <= rank <= min(weight.shape):
        raise ValueError(
            f"rank {rank} is impossible for a {weight.shape[0]} x {weight.shape[1]} weight; "
            f"choose a rank from 1 to {min(weight.shape)}"
        )
    W = weight.detach().double()
    if not W.isfinite().all():
        raise ValueError(
            "the weight holds NaN or infinite values and cannot be decomposed; reload the base model"
        )
    if W.shape[0] < W.shape[1]:
        flipped = _of_tall(W.mT.contiguous(), rank, kind)
        return Triplets(U=flipped.V, S=flipped.S, V=flipped.U)
    return _of_tall(W, rank, kind)


def decompose_cached(weight: Tensor, *, rank: int, kind: Kind, cache: str | Path | None) -> Triplets:
    """`decompose`, remembered in the folder `cache` under the weight's hash, the rank and the kind.

    ``cache=None`` computes. Entries carry a checksum: a damaged one is logged and computed again. Several processes may
    share a folder.
    """
    if cache is None:
        return decompose(weight, rank=rank, kind=kind)
    path = Path(cache) / f"{tensor_hash(weight)[:32]}-{kind}-{rank}.safetensors"
    if path.exists():
        found = _read_entry(path, weight.device)
        if found is not None:
            return found
        logger.warning("%s is damaged; the decomposition is computed again", path)
    triplets = decompose(weight, rank=rank, kind=kind)
    _write_entry(path, triplets)
    return triplets


def tensor_hash(*tensors: Tensor) -> str:
    """SHA-256 over dtype, shape and bytes of the tensors, in order."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _of_tall(W: Tensor, rank: int, kind: Kind) -> Triplets:
    triplets = _krylov(W, rank, kind)
    return _full(W, rank, kind) if triplets is None else triplets


def _full(W: Tensor, rank: int, kind: Kind) -> Triplets:
    U, S, Vh = torch.linalg.svd(W, full_matrices=False)
    chosen = slice(-rank, None) if kind == "smallest" else slice(None, rank)
    return Triplets(U=U[:, chosen], S=S[chosen], V=Vh[chosen].mT)


def _krylov(W: Tensor, rank: int, kind: Kind) -> Triplets | None:
    """Block Lanczos with full reorthogonalisation: M Q = Q H + X C on the last block. None where the subspace would
    outgrow a third of the matrix before it converges."""
    block, limit = rank + OVERSAMPLING, W.shape[1] // 3
    if 3 * block > limit:
        return None
    operator = _InverseGram(W) if kind == "smallest" else _Gram(W)
    generator = torch.Generator().manual_seed(0)
    X = torch.linalg.qr(torch.randn(W.shape[1], block, generator=generator, dtype=W.dtype).to(W.device)).Q
    Q, H = X[:, :0], X.new_empty(0, 0)
    next_check = 3 * block
    while Q.shape[1] + block <= limit:
        Q = torch.cat([Q, X], dim=1)
        X, projected, C = _orthogonal(operator.apply(X), Q)
        H = _bordered(H, projected)
        if Q.shape[1] < min(next_check, limit - block + 1):
            continue
        values, vectors = torch.linalg.eigh(H)
        residual = C @ vectors[-block:, -rank:]
        if (residual.norm(dim=0) / (values[-rank:] - values[-rank - 1])).norm() <= TOLERANCE:
            triplets = _ritz(W, Q @ vectors[:, -rank:])
            if operator.error_bound(triplets, values[-rank - 1]) <= TOLERANCE:
                return triplets
        next_check = math.ceil(1.15 * Q.shape[1])
    return None


class _Gram:
    """M = W^T W, whose largest eigenvalues are the largest s^2."""

    def __init__(self, W: Tensor) -> None:
        self.W = W

    def apply(self, X: Tensor) -> Tensor:
        return self.W.mT @ (self.W @ X)

    def error_bound(self, triplets: Triplets, value: Tensor) -> Tensor:
        """Bound on the relative error of the product, given the next eigenvalue. A residual g of ``M v = s^2 v``
        turns v by at most |g| / (s^2 - s_next^2) towards other singular vectors (Davis-Kahan), which W multiplies
        by at most s_next."""
        turned = _residual(self.W, triplets).norm(dim=0) * triplets.S / (triplets.S**2 - value)
        return (turned * value.sqrt()).norm() / triplets.S.norm()


class _InverseGram:
    """M = (W^T W)^-1, whose largest eigenvalues are the smallest s^2, inverted. A vanishing pivot is raised to
    rounding level, as inverse iteration allows."""

    def __init__(self, W: Tensor) -> None:
        self.W = W
        floor = torch.finfo(W.dtype).eps * W.norm()
        if W.shape[0] == W.shape[1]:
            LU, pivots, _ = torch.linalg.lu_factor_ex(W)
            _raise_pivots_(LU.diagonal(), floor)
            self.solve = lambda X: torch.linalg.lu_solve(LU, pivots, X)
            self.solve_adjoint = lambda X: torch.linalg.lu_solve(LU, pivots, X, adjoint=True)
        else:
            R = torch.linalg.qr(W, mode="r").R
            _raise_pivots_(R.diagonal(), floor)
            self.solve = lambda X: torch.linalg.solve_triangular(R, X, upper=True)
            self.solve_adjoint = lambda X: torch.linalg.solve_triangular(R.mT, X, upper=False)

    def apply(self, X: Tensor) -> Tensor:
        return self.solve(self.solve_adjoint(X))

    def error_bound(self, triplets: Triplets, value: Tensor) -> Tensor:
        """As for the largest, but each component g_j of the residual is divided by its own s_j^2: bounding them
        all by the one next to the edge would be s_max / s_next times too pessimistic."""
        share = triplets.S.square() * value  # (s / s_next)^2, below 1
        filtered = self.solve_adjoint(_residual(self.W, triplets)).norm(dim=0) * triplets.S / (1 - share)
        rounding = torch.finfo(self.W.dtype).eps * self.W.norm()
        error = filtered.norm() / torch.maximum(triplets.S.norm(), rounding)
        return torch.where((share < 1).all(), error, torch.inf)


def _residual(W: Tensor, triplets: Triplets) -> Tensor:
    return W.mT @ triplets.U - triplets.V * triplets.S


def _raise_pivots_(diagonal: Tensor, floor: Tensor) -> None:
    diagonal.copy_(torch.where(diagonal.abs() < floor, floor, diagonal))


def _orthogonal(Y: Tensor, Q: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Orthonormal X, and P, C with Y = Q P + X C. Twice, because once leaves rounding errors that grow."""
    P = Q.mT @ Y
    X, C = torch.linalg.qr(Y - Q @ P)
    correction = Q.mT @ X
    X, turned = torch.linalg.qr(X - Q @ correction)
    return X, P + correction @ C, turned @ C


def _bordered(H: Tensor, columns: Tensor) -> Tensor:
    """H with new last columns, and the rows that make it symmetric."""
    size, block = columns.shape
    bordered = columns.new_empty(size, size)
    bordered[: size - block, : size - block] = H
    bordered[:, size - block :] = columns
    bordered[size - block :, : size - block] = columns[: size - block].mT
    return bordered


def _ritz(W: Tensor, V: Tensor) -> Triplets:
    """The triplets of W within the span of the orthonormal V; taken on W, not on its squares."""
    U, S, Vh = torch.linalg.svd(W @ V, full_matrices=False)
    return Triplets(U=U, S=S, V=V @ Vh.mT)


def _write_entry(path: Path, triplets: Triplets) -> None:
    tensors = {name: getattr(triplets, name).cpu() for name in ("U", "S", "V")}
    write_weights(path, tensors, {"sha256": tensor_hash(*tensors.values())})


def _read_entry(path: Path, device: torch.device) -> Triplets | None:
    """None where the entry is damaged."""
    try:
        weights = read_weights(path, only=("U", "S", "V"))
    except BadFile:
        return None
    tensors = weights.tensors
    if weights.metadata.get("sha256") != tensor_hash(*tensors.values()):
        return None
    return Triplets(**{name: tensor.to(device) for name, tensor in tensors.items()})

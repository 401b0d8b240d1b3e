"""What an adapter and its optimizer add, in numbers: how many are trained, kept beside them, and stored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from urae.adapters import Full, Lora, Major, Mica, Minor, Spec
from urae.adapters.targets import linear_layers, parameter_owners, resolved, select

__all__ = ["AdapterSize", "adapter_size", "effective_rank", "optimizer_bytes"]

FP32 = 4
"""Bytes of a number; everything trained is fp32."""


@dataclass(frozen=True, kw_only=True)
class AdapterSize:
    """Numbers (not bytes) of an adapter."""

    trained: int
    frozen: int
    """Beside the trained ones: where Minor and Major started, Mica's basis."""
    zero: int
    """Of the trained ones, those that start at zero."""
    exported: int
    """In the adapter's file, without an adapter that it started from."""


def effective_rank(spec: Any) -> int:
    """Rank at which the adapter runs: Minor and Major are differences of two products."""
    return spec.rank * (2 if isinstance(spec, Minor | Major) else 1)


def adapter_size(transformer: Any, spec: Spec) -> AdapterSize:
    """The size of `spec` on this transformer; `ValueError` for a target that matches nothing."""
    spec = resolved(spec, transformer)
    if isinstance(spec, Full):
        owners = parameter_owners(transformer)
        names = select(owners, spec.targets)
        num = sum(p.numel() for name in names for p in owners[name].parameters(recurse=False))
        return AdapterSize(trained=num, frozen=0, zero=num, exported=num)
    layers = linear_layers(transformer)
    names = select(layers, spec.targets)
    A, B = (
        sum(getattr(layers[name], side) for name in names) * spec.rank  # type: ignore[attr-defined]
        for side in ("in_features", "out_features")
    )
    if isinstance(spec, Mica):
        return AdapterSize(trained=A, frozen=B, zero=A, exported=A + B)
    if isinstance(spec, Lora):
        return AdapterSize(trained=A + B, frozen=0, zero=B, exported=A + B)
    return AdapterSize(trained=A + B, frozen=A + B, zero=0, exported=2 * (A + B))


def optimizer_bytes(size: AdapterSize, optimizer: str) -> int:
    """State of "adamw" (two moments) or "prodigy" (two moments, a running sum, and where each parameter
    started, which it keeps only for those that were not zero)."""
    if optimizer == "adamw":
        return 2 * FP32 * size.trained
    return FP32 * (4 * size.trained - size.zero)

"""A transformer's velocity as training asks for it: on the right device, in the recipe's type, at a
guidance."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from urae.families import Family
from urae.training.objective import Batch

__all__ = ["Predictor", "autocast", "predictor"]


@dataclass(frozen=True, kw_only=True)
class Predictor:
    """Velocity from a batch, (B, C, H, W), fp32."""

    family: Family
    transformer: nn.Module
    guidance: float | None
    """What the transformer is shown; None for one that takes no guidance."""
    base_dtype: str
    """"bf16" or "fp32"."""

    def __call__(self, batch: Batch) -> Tensor:
        with autocast(batch.clean.device, self.base_dtype):
            return self.family.calls.velocity(
                self.transformer,
                batch.noisy,
                sigma=batch.sigma,
                embeddings=batch.embeddings,
                guidance=self.guidance,
            )


def predictor(family: Family, transformer: nn.Module, *, guidance: float, base_dtype: str) -> Predictor:
    """A predictor at this guidance scale. A transformer that takes no guidance predicts the velocity at
    guidance 1, and any other is a `ValueError`."""
    is_embedded = family.guidance.kind(transformer) == "embedded"
    if not is_embedded and guidance != 1:
        raise ValueError(f"guidance is {guidance}: this transformer takes none, which is guidance 1")
    shown = guidance if is_embedded else None
    return Predictor(family=family, transformer=transformer, guidance=shown, base_dtype=base_dtype)


def autocast(device: torch.device, base_dtype: str) -> AbstractContextManager:
    """Compute in bf16, or in the weights' own type for "fp32"."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=base_dtype == "bf16")

"""Teachers of the distillation loss: the model as it started, or another transformer of the family."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from urae.training.objective import Batch
from urae.training.prediction import Predictor

__all__ = ["Teacher", "base_teacher", "other_teacher"]

Teacher = Callable[[Batch], Tensor]
"""Velocity of a batch, without gradient."""


def base_teacher(predict: Predictor, parameters: Sequence[nn.Parameter]) -> Teacher:
    """The model as it is now: every adapter starts as the identity, so its first parameters give the base's
    velocity, together with an adapter that the run starts from."""
    first = [parameter.detach().clone() for parameter in parameters]

    @torch.no_grad()
    def teach(batch: Batch) -> Tensor:
        with _holding(parameters, first):
            return predict(batch)

    return teach


def other_teacher(predict: Predictor) -> Teacher:
    """Another transformer."""
    return torch.no_grad()(predict.__call__)


@contextmanager
def _holding(parameters: Sequence[nn.Parameter], values: Sequence[Tensor]) -> Iterator[None]:
    # The storage is exchanged rather than copied: no cost, and autograd has nothing to notice.
    own = [parameter.data for parameter in parameters]
    try:
        for parameter, value in zip(parameters, values, strict=True):
            parameter.data = value
        yield
    finally:
        for parameter, value in zip(parameters, own, strict=True):
            parameter.data = value

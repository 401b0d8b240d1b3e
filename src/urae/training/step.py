"""The gradient of one step's batch, over parts and processes.

A batch is dealt out to the processes image by image, and each process may split its share further. Losses are
sums over images divided by the batch size, and gradients are added up over parts and processes, so that one
process and eight, split and whole, compute the same step up to the rounding of sums.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn

from urae.data import Sample
from urae.training.groups import group_of
from urae.training.objective import Batch, draw_batch, losses
from urae.training.prediction import Predictor
from urae.training.recipe import Recipe

__all__ = ["Gradient", "Objective"]


@dataclass(frozen=True, kw_only=True)
class Gradient:
    """What the backward pass of one step found; the gradients themselves are in the parameters."""

    losses: dict[str, float]
    """Means over the batch: "loss", and "flow" and "distill" where they have a weight."""
    norm: float
    """Norm of the gradient, before clipping."""
    spoilt: tuple[str, ...]
    """Ids of the records whose loss is NaN or infinite."""


@dataclass(frozen=True, kw_only=True)
class Objective:
    """The recipe's objective on one model, and how its gradient is put together."""

    recipe: Recipe
    accelerator: Accelerator
    student: Predictor
    teacher: Callable[[Batch], Tensor] | None
    """None where the recipe distils nothing."""
    shift: float
    """Of the noise level, at the recipe's size."""

    def backward(
        self, samples: Sequence[Sample], parameters: Sequence[nn.Parameter], *, step: int
    ) -> Gradient:
        """Put the gradient of the batch's mean loss into the parameters, clipped.

        samples: this process's share of the batch of this step, counted from 0.
        """
        totals: dict[str, Tensor] = {}
        spoilt: list[str] = []
        for part, places in self._parts(samples):
            found = self._losses(self._batch(part, places, step))
            (found["loss"].sum() / self.num_counted).backward()
            spoilt += [s.id for s, loss in zip(part, found["loss"], strict=True) if not loss.isfinite()]
            for name, values in found.items():
                total = values.detach().sum()
                totals[name] = totals[name] + total if name in totals else total
        means = {name: self._sum(total).item() / self.num_counted for name, total in totals.items()}
        if not math.isfinite(means["loss"]):  # in one process, and so in the sums of all
            spoilt = list(dict.fromkeys(gather_object(spoilt)))
        return Gradient(losses=means, norm=self._norm(parameters), spoilt=tuple(spoilt))

    @property
    def num_counted(self) -> int:
        """Images of a batch, each as often as processes share its tokens, since each of them counts its loss."""
        return self.recipe.batch_size * self.recipe.context_parallel

    def _parts(self, samples: Sequence[Sample]) -> list[tuple[Sequence[Sample], range]]:
        """Parts of this process's share, each with its places in the global batch."""
        process, num = group_of(self.accelerator, self.recipe)
        places = range(process, self.recipe.batch_size, num)
        length = len(samples) // self.recipe.gradient_accumulation
        return [
            (samples[at : at + length], places[at : at + length]) for at in range(0, len(samples), length)
        ]

    def _batch(self, samples: Sequence[Sample], places: Sequence[int], step: int) -> Batch:
        recipe = self.recipe
        batch = draw_batch(
            samples,
            places=places,
            seed=recipe.seed,
            step=step,
            distribution=recipe.sigma_sampling,
            shift=self.shift,
        )
        return batch.to(self.accelerator.device)

    def _losses(self, batch: Batch) -> dict[str, Tensor]:
        taught = self.teacher(batch) if self.teacher else None
        recipe = self.recipe
        return losses(
            self.student(batch),
            batch,
            taught,
            flow_weight=recipe.flow_weight,
            distill_weight=recipe.distill_weight,
        )

    def _norm(self, parameters: Sequence[nn.Parameter]) -> float:
        """Add the gradients of all processes, clip them, and return their norm before that."""
        if self.accelerator.num_processes > 1:
            self._add_up(parameters)
        limit = self.recipe.clip_norm or float("inf")
        return float(torch.nn.utils.clip_grad_norm_(parameters, limit))

    def _add_up(self, parameters: Sequence[nn.Parameter]) -> None:
        # In one message: an adapter has hundreds of small parameters.
        flat = torch.cat([_gradient(parameter).flatten() for parameter in parameters])
        sizes = [parameter.numel() for parameter in parameters]
        for parameter, total in zip(parameters, self._sum(flat).split(sizes), strict=True):
            parameter.grad = total.view_as(parameter)

    def _sum(self, tensor: Tensor) -> Tensor:
        return self.accelerator.reduce(tensor, reduction="sum")


def _gradient(parameter: nn.Parameter) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad

"""The gradient of one step's batch, over parts and processes.

A batch is dealt out to the processes image by image, and each process may split its share further. Losses are
sums over images divided by the batch size, and gradients are added up over parts and processes, so that one
process and eight, split and whole, compute the same step up to the rounding of sums.

Drawing, launching and waiting are three calls, because a GPU is told what to do long before it is done: what the
next step needs is drawn meanwhile, and all that is read of a step is read at once.
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
from urae.execution import group_of
from urae.training.objective import Batch, draw_batch, losses
from urae.training.prediction import Predictor
from urae.training.recipe import Recipe

__all__ = ["Gradient", "Launched", "Objective", "Share"]


@dataclass(frozen=True, kw_only=True)
class Share:
    """A process's images of one step, with all that chance decides drawn; on the host."""

    samples: Sequence[Sample]
    parts: tuple[Batch, ...]
    """The samples in the same order, as the process splits its share."""


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
class Launched:
    """A step's gradient on its way: the device has been told to compute it, and nothing has waited for it."""

    names: tuple[str, ...]
    numbers: Tensor
    """Sums of the losses over the batch, by `names`, and behind them the gradient's norm."""
    num_images: int
    """In the batch, see `Objective.num_counted`."""
    each: Tensor
    """Loss of each of this process's images."""
    ids: tuple[str, ...]
    """Their records."""

    def wait(self) -> Gradient:
        """Wait for the device, once."""
        *sums, norm = self.numbers.tolist()
        means = {name: total / self.num_images for name, total in zip(self.names, sums, strict=True)}
        # What is not finite in one process is not in the sums of all: so all of them gather.
        spoilt = () if math.isfinite(means["loss"]) else self._spoilt()
        return Gradient(losses=means, norm=norm, spoilt=spoilt)

    def _spoilt(self) -> tuple[str, ...]:
        finite = self.each.isfinite().tolist()
        spoilt = gather_object([id for id, good in zip(self.ids, finite, strict=True) if not good])
        return tuple(dict.fromkeys(spoilt))


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

    def draw(self, samples: Sequence[Sample], *, step: int) -> Share:
        """Draw noise and noise levels for this process's share of the batch of this step, counted from 0."""
        parts = tuple(self._batch(part, places, step) for part, places in self._parts(samples))
        return Share(samples=samples, parts=parts)

    def backward(self, share: Share, parameters: Sequence[nn.Parameter]) -> Launched:
        """Have the gradient of the batch's mean loss put into the parameters, clipped."""
        found = []
        for batch in share.parts:
            losses = self._losses(batch.to(self.accelerator.device))
            (losses["loss"].sum() / self.num_counted).backward()
            found.append({name: values.detach() for name, values in losses.items()})
        names = tuple(found[0])
        sums = torch.stack([sum(part[name].sum() for part in found) for name in names])  # type: ignore[misc]
        return Launched(
            names=names,
            numbers=torch.cat([self._sum(sums), self._norm(parameters)[None]]),
            num_images=self.num_counted,
            each=torch.cat([part["loss"] for part in found]),
            ids=tuple(sample.id for sample in share.samples),
        )

    @property
    def num_counted(self) -> int:
        """Images of a batch, each as often as processes share its tokens, since each of them counts its loss."""
        return self.recipe.batch_size * self.recipe.context_parallel

    def _parts(self, samples: Sequence[Sample]) -> list[tuple[Sequence[Sample], range]]:
        """Parts of this process's share, each with its places in the global batch."""
        process, num = group_of(self.recipe.context_parallel)
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
        # From pinned memory a copy to a GPU is queued like any other work.
        return batch.pinned() if self.accelerator.device.type == "cuda" else batch

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

    def _norm(self, parameters: Sequence[nn.Parameter]) -> Tensor:
        """Add the gradients of all processes, clip them, and return their norm before that."""
        if self.accelerator.num_processes > 1:
            self._add_up(parameters)
        limit = self.recipe.clip_norm or float("inf")
        return torch.nn.utils.clip_grad_norm_(parameters, limit)

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

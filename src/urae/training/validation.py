"""Validation loss: held-out records at fixed noise levels and fixed noise, so that steps and runs compare.

The noise is keyed by the record's place among those held out and by the level, not by the recipe's seed. The
clean latent is the posterior's mean, the text the detailed caption where there is one.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from accelerate import Accelerator

from urae.data import CachedDataset
from urae.training.objective import Batch, velocity_error
from urae.training.prediction import Predictor
from urae.training.randomness import normal

__all__ = ["SIGMAS", "validation_row"]

SIGMAS = (0.1, 0.3, 0.5, 0.7, 0.9)
"""Noise levels of the validation loss."""


@torch.no_grad()
def validation_row(
    predict: Predictor, held_out: CachedDataset, accelerator: Accelerator, *, group: tuple[int, int]
) -> dict[str, float]:
    """Mean flow-matching loss over the held-out records, at each of `SIGMAS` ("validation_loss_0.1", ...) and
    over all ("validation_loss"). The groups of processes share the records out; `group`, see `group_of`."""
    errors = torch.zeros(len(held_out), len(SIGMAS), device=accelerator.device)
    is_first = accelerator.process_index % (accelerator.num_processes // group[1]) == 0
    for place in range(group[0], len(held_out), group[1]):
        for level, batch in enumerate(_batches(held_out, place)):
            batch = batch.to(accelerator.device)
            error = velocity_error(predict(batch), batch.velocity).sum()
            if is_first:  # of its group, whose others have the same
                errors[place, level] = error
    # Each number is one process's, and zero in the others: so sums are one process's to the bit.
    means = accelerator.reduce(errors, reduction="sum").mean(dim=0).tolist()
    by_level = {f"validation_loss_{sigma}": mean for sigma, mean in zip(SIGMAS, means, strict=True)}
    return {"validation_loss": sum(means) / len(means), **by_level}


def _batches(held_out: CachedDataset, place: int) -> Iterator[Batch]:
    """One record at each noise level, each a batch of one."""
    sample = held_out[place]
    clean = sample.posterior.mean[None]
    embeddings = {name: tensor[None] for name, tensor in sample.text.items()}
    for level, sigma in enumerate(SIGMAS):
        noise = normal(clean.shape, seed=0, step=level, sample=place, purpose="validation")
        yield Batch(clean=clean, noise=noise, sigma=torch.tensor([sigma]), embeddings=embeddings)

"""The objective: flow matching on images, distillation from a teacher, or a weighted sum (paper, Eqs. 1 and
2).

    noisy = (1 - sigma) clean + sigma noise        velocity = noise - clean

A `Batch` is what the transformer is shown, drawn for each sample by (seed, step, sample) alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from urae.data import Sample
from urae.training.randomness import generator, normal
from urae.training.sigma import draw_sigma

__all__ = ["Batch", "draw_batch", "losses", "mixed", "velocity_error"]


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Clean latents of one size, and the noise, noise level and text that go with them."""

    clean: Tensor
    """(B, C, H, W), fp32."""
    noise: Tensor
    """(B, C, H, W), fp32."""
    sigma: Tensor
    """(B,) in [0, 1], fp32."""
    embeddings: dict[str, Tensor]
    """Text embeddings, batch first."""

    @property
    def noisy(self) -> Tensor:
        return mixed(self.clean, self.noise, self.sigma)

    @property
    def velocity(self) -> Tensor:
        return self.noise - self.clean

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device. A copy to a GPU is queued, and not waited for."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pinned(self) -> Batch:
        """The same batch in host memory that a GPU can read while the host goes on."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        return replace(
            self,
            clean=change(self.clean),
            noise=change(self.noise),
            sigma=change(self.sigma),
            embeddings={name: change(tensor) for name, tensor in self.embeddings.items()},
        )


def mixed(clean: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """noisy = (1 - sigma) clean + sigma noise, with sigma (B,)."""
    sigma = sigma.view(-1, 1, 1, 1)
    return (1 - sigma) * clean + sigma * noise


def draw_batch(
    samples: Sequence[Sample],
    *,
    places: Sequence[int],
    seed: int,
    step: int,
    distribution: str,
    shift: float,
) -> Batch:
    """Draw posterior noise, noise and sigma for samples of one size.

    places: each sample's place in the step's global batch. distribution, shift: see `urae.training.sigma`.
    """
    drawn = [
        _draw(
            sample,
            place,
            seed=seed,
            step=step,
            distribution=distribution,
            shift=shift,
        )
        for sample, place in zip(samples, places, strict=True)
    ]
    clean, noise, sigma, texts = zip(*drawn, strict=True)
    return Batch(
        clean=torch.stack(clean),
        noise=torch.stack(noise),
        sigma=torch.tensor(sigma, dtype=torch.float32),
        embeddings={name: torch.stack([text[name] for text in texts]) for name in texts[0]},
    )


def _draw(
    sample: Sample, place: int, *, seed: int, step: int, distribution: str, shift: float
) -> tuple[Tensor, Tensor, float, dict[str, Tensor]]:
    where = {"seed": seed, "step": step, "sample": place}
    shape = sample.posterior.mean.shape
    clean = sample.posterior.sample(normal(shape, **where, purpose="posterior"))
    noise = normal(shape, **where, purpose="noise")
    sigma = draw_sigma(generator(**where, purpose="sigma"), distribution=distribution, shift=shift)
    return clean, noise, sigma, sample.text


def losses(
    predicted: Tensor, batch: Batch, taught: Tensor | None, *, flow_weight: float, distill_weight: float
) -> dict[str, Tensor]:
    """What the objective makes of a predicted velocity, per sample (B,): "loss", and each part that has a
    weight.

    "flow" is the distance to noise - clean (paper, Eq. 1), "distill" the distance to `taught`, the teacher's
    velocity at the same noisy latents, sigma and text (Eq. 2), which has no effect, and may be None, at
    weight 0.
    """
    parts = {}
    if flow_weight:
        parts["flow"] = velocity_error(predicted, batch.velocity)
    if distill_weight:
        assert taught is not None
        parts["distill"] = velocity_error(predicted, taught)
    weights = {"flow": flow_weight, "distill": distill_weight}
    return {"loss": torch.stack([weights[name] * part for name, part in parts.items()]).sum(dim=0), **parts}


def velocity_error(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of each sample, (B,), in fp32."""
    return (predicted.float() - target.float()).square().flatten(1).mean(dim=1)

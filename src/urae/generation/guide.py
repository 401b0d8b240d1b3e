"""The velocity seen or corrected: between the transformer and the Euler step, inside a stock pipeline.

The scheduler is where the velocity, the noisy latents, the noise level and the step's number meet, after any
classifier-free guidance and in fp32. Recovering the velocity from latents in a step-end callback instead would
lose it to bf16 rounding in the early steps, where the step is small against the latents.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteSchedulerOutput
from torch import Tensor

from urae.families import family_of
from urae.resolution import scheduler_replaced

__all__ = [
    "Correction",
    "GuidedEuler",
    "Step",
    "WatchedEuler",
    "low_pass",
    "smooth",
    "steps_watched",
    "velocity_corrected",
]


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step of the denoising loop, before it is taken."""

    velocity: Tensor
    """What the model predicts, (B, C, H, W), fp32."""
    noisy: Tensor
    """The latents that it saw, (B, C, H, W), fp32."""
    sigma: Tensor
    """Their noise level, a scalar in (0, 1]."""
    index: int
    """The step's number, from 0."""
    num_steps: int


Correction = Callable[[Step], Tensor]
"""The velocity (B, C, H, W) that is to be taken instead."""


class SeeingEuler(FlowMatchEulerDiscreteScheduler):
    """The stock Euler scheduler, which knows the shape of the latents that it is given as tokens."""

    unpack: Callable[[Tensor], Tensor]
    pack: Callable[[Tensor], Tensor]

    @property
    def current_step(self) -> int:
        """Number of the step that is being computed, from 0; the transformer runs before it is taken."""
        return self.begin_index or 0 if self.step_index is None else self.step_index

    def seen(self, model_output: Tensor, sample: Tensor) -> Step:
        """The step that is about to be taken."""
        index = self.current_step
        return Step(
            velocity=self.unpack(model_output.float()),
            noisy=self.unpack(sample.float()),
            sigma=self.sigmas[index].to(sample.device),
            index=index,
            num_steps=len(self.timesteps),
        )


class GuidedEuler(SeeingEuler):
    """The stock Euler scheduler, with a correction of the velocity before each step."""

    correction: Correction

    def step(
        self,
        model_output: Tensor,
        timestep: Any,
        sample: Tensor,
        *,
        return_dict: bool = True,
        **settings: Any,
    ) -> Any:
        """As in the base class; the noisy latents come back in the type in which they were given."""
        velocity = self.pack(self.correction(self.seen(model_output, sample)))
        noisy = super().step(velocity, timestep, sample, return_dict=False, **settings)[0].to(sample.dtype)
        return FlowMatchEulerDiscreteSchedulerOutput(prev_sample=noisy) if return_dict else (noisy,)


class WatchedEuler(SeeingEuler):
    """The stock Euler scheduler, bit for bit, which shows each step to somebody."""

    watch: Callable[[Step], None]

    def step(self, model_output: Tensor, timestep: Any, sample: Tensor, **settings: Any) -> Any:
        """As in the base class."""
        self.watch(self.seen(model_output, sample))
        return super().step(model_output, timestep, sample, **settings)


@contextmanager
def velocity_corrected(pipe: Any, correction: Correction, *, size: tuple[int, int]) -> Iterator[GuidedEuler]:
    """Run a stock pipeline at `size` (width, height, pixels) with corrected velocities; undone on exit.

    The timestep shift stays what it is. Raises ValueError for a pipeline with another kind of scheduler.
    """
    scheduler = _seeing(GuidedEuler, pipe, size)
    scheduler.correction = correction
    with scheduler_replaced(pipe, scheduler):
        yield scheduler


@contextmanager
def steps_watched(pipe: Any, watch: Callable[[Step], None], *, size: tuple[int, int]) -> Iterator[None]:
    """Show each step of a stock pipeline at `size` (width, height, pixels) to `watch`; it changes nothing.

    Raises ValueError for a pipeline with another kind of scheduler than Euler's.
    """
    scheduler = _seeing(WatchedEuler, pipe, size)
    scheduler.watch = watch
    with scheduler_replaced(pipe, scheduler):
        yield


Seeing = TypeVar("Seeing", bound=SeeingEuler)


def _seeing(kind: type[Seeing], pipe: Any, size: tuple[int, int]) -> Seeing:
    """A scheduler like the pipeline's, of this kind."""
    if type(pipe.scheduler) is not FlowMatchEulerDiscreteScheduler:
        raise ValueError(
            f"{type(pipe.scheduler).__name__} takes other steps than Euler's: give the pipeline a "
            "FlowMatchEulerDiscreteScheduler before a guided method"
        )
    latents = family_of(pipe).latents
    height, width = latents.shape(pipe, size)
    scheduler = kind.from_config(pipe.scheduler.config)
    scheduler.pack = latents.pack
    scheduler.unpack = lambda tokens: latents.unpack(tokens, height, width)
    return scheduler


def low_pass(latents: Tensor, *, level: int, offset: int = 0) -> Tensor:
    """Each value replaced by the mean of its block of 2^level x 2^level; (..., H, W).

    A Haar decomposition of that level without its details (I-Max), where the blocks fit. At the border, blocks that
    are cut are averaged over what is inside, so this is a projection at every size. `offset` shifts the grid of
    blocks up and left. Level 0 is the identity.
    """
    block = 2**level
    height, width = latents.shape[-2:]
    padding = (offset, -(offset + width) % block, offset, -(offset + height) % block)
    inside = F.pad(torch.ones_like(latents[..., :1, :, :]), padding)
    means = F.avg_pool2d(F.pad(latents, padding), block) / F.avg_pool2d(inside, block)
    whole = means.repeat_interleave(block, dim=-2).repeat_interleave(block, dim=-1)
    return whole[..., offset : offset + height, offset : offset + width]


def smooth(latents: Tensor, *, cutoff: float) -> Tensor:
    """A Butterworth low-pass of order 4, by the Fourier transform, so that borders wrap around; (..., H, W).

    Gain 1 / (1 + (d / cutoff)^8) at a frequency of d times the highest along an axis: half is left at `cutoff`
    (HiFlow).
    """
    height, width = latents.shape[-2:]
    rows = 2 * torch.fft.fftfreq(height, device=latents.device)[:, None]
    columns = 2 * torch.fft.rfftfreq(width, device=latents.device)
    gain = 1 / (1 + ((rows**2 + columns**2) / cutoff**2) ** 4)
    return torch.fft.irfft2(torch.fft.rfft2(latents) * gain, s=(height, width))

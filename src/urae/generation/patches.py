"""Tokens cut half a token further: what I-Max calls swin patchify, against seams between tokens.

On every other step, from the first, the transformer sees the latents with a border of one zero all around, so that its
2 x 2 patches begin one latent earlier; the border is cut off its answer. Unlike in the published code no border stays
behind, whatever the number of steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch.nn.functional as F

from urae.execution import forward_replaced
from urae.families import family_of
from urae.generation.guide import SeeingEuler
from urae.resolution import Size

__all__ = ["is_shifted", "patches_shifted"]


def is_shifted(index: int) -> bool:
    """Whether the step of this number, from 0, sees shifted patches."""
    return index % 2 == 0


@contextmanager
def patches_shifted(pipe: Any, scheduler: SeeingEuler, *, size: Size) -> Iterator[None]:
    """Shift the patches of a stock pipeline at `size` (width, height, pixels), whose steps `scheduler` counts.

    Undone on exit. Raises ValueError for a transformer that was compiled in place.
    """
    family = family_of(pipe)
    height, width = family.latents.shape(pipe, size)

    def shifted(forward: Callable[..., Any]) -> Callable[..., Any]:
        def call(**inputs: Any) -> Any:
            if not is_shifted(scheduler.current_step):
                return forward(**inputs)
            padded = F.pad(family.calls.latents(inputs, height, width), (1, 1, 1, 1))
            output = forward(**family.calls.with_latents(inputs, padded))[0]
            velocity = family.calls.velocity_in(output, height + 2, width + 2)[..., 1:-1, 1:-1]
            return (family.calls.as_output(velocity),)

        return call

    with forward_replaced(pipe.transformer, shifted, what="shifted_patches"):
        yield

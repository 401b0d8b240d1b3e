"""The trained miniature, loaded from the package: a stock FluxPipeline, offline, in seconds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from diffusers import FluxPipeline

__all__ = ["WEIGHTS", "pipeline"]

WEIGHTS = Path(__file__).parent / "weights"
"""The standard diffusers folder: `FluxPipeline.from_pretrained(urae.mini.WEIGHTS)` reads it too."""


def pipeline(dtype: torch.dtype = torch.float32) -> FluxPipeline:
    """The miniature FLUX: native 128 px, 16 px a token, 32 text tokens; a stock pipeline on the CPU.

    It draws captions of `urae.mini.scene`, such as "a flat tiger left of a glossy umbrella on a wood
    background". Without `height` and `width` a call makes the native size."""
    from diffusers import FluxPipeline  # here, since the world of scenes is often wanted without the model

    with _without_bars():
        pipe = FluxPipeline.from_pretrained(WEIGHTS, dtype=dtype)
    pipe.default_sample_size = pipe.vae.config.sample_size // pipe.vae_scale_factor
    return pipe


@contextmanager
def _without_bars() -> Iterator[None]:
    import diffusers
    import transformers

    # Five progress bars for two seconds of loading say nothing.
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    try:
        yield
    finally:
        diffusers.utils.logging.enable_progress_bar()
        transformers.utils.logging.enable_progress_bar()

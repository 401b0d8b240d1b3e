"""The trained miniature, loaded from the package: a stock FluxPipeline, offline, in seconds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from diffusers import FluxPipeline

__all__ = ["ADAPTERS", "WEIGHTS", "adapter_file", "pipeline"]

WEIGHTS = Path(__file__).parent / "weights"
"""The standard diffusers folder: `FluxPipeline.from_pretrained(urae.mini.WEIGHTS)` reads it too."""

ADAPTERS = ("2x", "4x")
"""The trained adapters, for 256 and 512 px."""


def adapter_file(name: str) -> Path:
    """The file of one of `ADAPTERS`: a plain LoRA with its policy. `urae.Adapter.load("mini:2x")` reads the same."""
    if name not in ADAPTERS:
        known = " or ".join(f"mini:{one}" for one in ADAPTERS)
        raise ValueError(f"mini:{name} names no adapter: expected {known}")
    return Path(__file__).parent / "adapters" / f"{name}.safetensors"


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

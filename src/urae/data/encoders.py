"""A pipeline to cache with: its text encoders and VAE, and of its transformer only what it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import torch
from accelerate import init_empty_weights

from urae import mini

__all__ = ["open_encoders"]


def open_encoders(name: str | Path, *, dtype: torch.dtype) -> Any:
    """The stock pipeline of "mini", of a folder in the diffusers layout or of a hub id, on the CPU, its
    transformer without weights: these would be most of what is loaded, in each process. `ValueError` if there is
    none under this name."""
    if name == "mini":
        return mini.pipeline(dtype)
    try:
        parts = diffusers.DiffusionPipeline.load_config(name)
        kind = getattr(diffusers, parts["transformer"][1])
        with init_empty_weights():
            transformer = kind.from_config(kind.load_config(name, subfolder="transformer"))
        return diffusers.DiffusionPipeline.from_pretrained(
            name, transformer=transformer, torch_dtype=dtype, use_safetensors=True
        )
    except OSError as error:
        raise ValueError(
            f"there is no pipeline {str(name)!r}: expected mini, a folder in the diffusers layout, or a hub id "
            f"such as black-forest-labs/FLUX.1-dev ({error})"
        ) from error

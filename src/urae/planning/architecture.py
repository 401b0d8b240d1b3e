"""A model's architecture without its weights: configurations, built on the meta device.

An `Architecture` has the parts of a stock pipeline that sizes and memory are reckoned from, so that functions
which take a pipeline take it too. Nothing is downloaded but configurations of a few kilobytes, and those of
FLUX.1 are known.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from diffusers import AutoencoderKL, FluxTransformer2DModel
from safetensors import safe_open

from urae import mini

__all__ = ["Architecture", "architecture_of"]

FLUX_VAE = {
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "block_out_channels": [128, 256, 512, 512],
    "layers_per_block": 2,
    "latent_channels": 16,
    "sample_size": 1024,
    "shift_factor": 0.1159,
    "scaling_factor": 0.3611,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
}
"""Of FLUX.1's VAE."""

FLUX_ENCODERS = 4_762_310_656 + 123_060_480
"""Numbers in the T5-XXL encoder and in CLIP-L's text model."""

FLUX_TEXT_TOKENS = {"black-forest-labs/FLUX.1-schnell": 256}
"""Of models that read fewer than 512."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Architecture:
    """The parts of a pipeline, without their weights. Each is its own, as modules are."""

    transformer: Any
    """On the meta device."""
    vae: Any
    """On the meta device."""
    tokenizer_2: Any
    """Knows `model_max_length`, the number of text tokens."""
    num_encoder_values: int
    """Numbers in the text encoders."""

    @property
    def components(self) -> dict[str, Any]:
        return {"transformer": self.transformer, "vae": self.vae}

    @property
    def num_text_tokens(self) -> int:
        return int(self.tokenizer_2.model_max_length)

    @property
    def encoder_bytes(self) -> int:
        """Of the text encoders, which come in the type of everything else."""
        return self.num_encoder_values * int(self.vae.dtype.itemsize)


def architecture_of(model: str, *, dtype: torch.dtype) -> Architecture:
    """The architecture of "mini", a folder in the diffusers layout or a hub id, as loaded in `dtype`."""
    folder = mini.WEIGHTS if model == "mini" else Path(model)
    if folder.is_dir():
        return _of_folder(folder, dtype)
    tokens = FLUX_TEXT_TOKENS.get(model, 512)
    return _built(_hub_config(model), FLUX_VAE, tokens, FLUX_ENCODERS, dtype)


def _hub_config(model: str) -> dict[str, Any]:
    if model in ("black-forest-labs/FLUX.1-dev", "black-forest-labs/FLUX.1-schnell"):
        return {"guidance_embeds": model.endswith("dev")}
    try:
        return FluxTransformer2DModel.load_config(model, subfolder="transformer")
    except OSError as error:
        raise ValueError(
            f"the configuration of {model!r} was not found: expected mini, a folder in the diffusers layout, or a "
            f"hub id such as black-forest-labs/FLUX.1-dev ({error})"
        ) from error


def _of_folder(folder: Path, dtype: torch.dtype) -> Architecture:
    transformer, vae, tokenizer = (
        json.loads((folder / file).read_text(encoding="utf-8"))
        for file in ("transformer/config.json", "vae/config.json", "tokenizer_2/tokenizer_config.json")
    )
    num = sum(_num_values(file) for file in sorted(folder.glob("text_encoder*/*.safetensors")))
    return _built(transformer, vae, tokenizer["model_max_length"], num, dtype)


def _built(
    transformer: dict[str, Any], vae: dict[str, Any], text_tokens: int, encoders: int, dtype: torch.dtype
) -> Architecture:
    with torch.device("meta"), _by_default(dtype):
        return Architecture(
            transformer=FluxTransformer2DModel.from_config(transformer),
            vae=AutoencoderKL.from_config(vae),
            tokenizer_2=SimpleNamespace(model_max_length=text_tokens),
            num_encoder_values=encoders,
        )


@contextmanager
def _by_default(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _num_values(file: Path) -> int:
    with safe_open(file, framework="pt") as opened:
        return sum(math.prod(opened.get_slice(name).get_shape()) for name in opened.keys())  # noqa: SIM118

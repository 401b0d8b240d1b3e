"""What a VAE's maps take, whatever family it serves: memory is reckoned with these, not with its layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["VaeMaps", "vae_maps"]


@dataclass(frozen=True, kw_only=True)
class VaeMaps:
    """Counted on fake tensors, without the workspaces of convolutions."""

    encoder: int
    """Values per pixel that are alive at most while an image, or a tile of one, is encoded."""
    decoder: int
    """The same while it is decoded."""
    tile: int
    """Side of diffusers' tiles in pixels; what is no larger is never cut."""


def vae_maps(vae: Any) -> VaeMaps:
    """Of a stock VAE. `ValueError` for one that is not known here."""
    if type(vae).__name__ not in COUNTED:
        raise ValueError(f"memory of {type(vae).__name__} is not known: expected one of {', '.join(COUNTED)}")
    return COUNTED[type(vae).__name__](vae)


def _autoencoder_kl(vae: Any) -> VaeMaps:
    """Five maps of the encoder's first level; the decoder's last level begins with three maps of the channels of the
    one below it."""
    outer = vae.config.block_out_channels[0]
    decoder = vae.config.get("decoder_block_out_channels") or vae.config.block_out_channels
    return VaeMaps(encoder=5 * outer, decoder=3 * decoder[:2][-1], tile=vae.config.sample_size)


def _qwen_image(vae: Any) -> VaeMaps:
    """An image is padded to three frames for each convolution, and the last two are kept for a next one that never
    comes: 10.1 and 18.1 times the first level's channels."""
    channels = vae.config.base_dim
    return VaeMaps(encoder=11 * channels, decoder=19 * channels, tile=vae.tile_sample_min_height)


COUNTED = {
    "AutoencoderKL": _autoencoder_kl,
    "AutoencoderKLFlux2": _autoencoder_kl,
    "AutoencoderKLQwenImage": _qwen_image,
}

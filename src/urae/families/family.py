"""What the rest of the package asks of a model family.

A backbone holds no weights and no state: it is told the pipeline or the transformer at each call, so that one
object serves a model, its adapted form and its teacher alike. Latents are always *normalised*, that is, as
the transformer sees them: shifted and scaled by the VAE's own factors, unit variance or thereabouts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from torch import Tensor, nn

__all__ = ["Backbone", "Embeddings", "Exchange", "Posterior", "Stream"]

Embeddings = Mapping[str, Tensor]
"""What the text encoders say about a batch of prompts: tensors of batch first, under the names by which the
stock pipeline takes them."""


@dataclass(frozen=True, kw_only=True)
class Posterior:
    """What the VAE says about a batch of images: a Gaussian over normalised latents, both (B, C, H, W),
    fp32."""

    mean: Tensor
    std: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        """A clean latent, from standard normal `noise` of the same shape."""
        return self.mean + self.std * noise


Stream = Literal["text", "image"]
"""A kind of tokens. Where processes share them, each kind is shared out by itself."""


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """A module at which processes that share an image's tokens exchange tensors, and the method of
    `urae.execution.context.Context` that does it."""

    module: nn.Module
    streams: tuple[Stream, ...]
    """Kinds of tokens in the tensor, in their order."""
    before: str = ""
    """What is done to the module's input."""
    after: str = ""
    """What is done to the module's output."""
    argument: str = ""
    """Name of the input, where it is no positional one."""


class Backbone(Protocol):
    """One model family."""

    @property
    def name(self) -> str:
        """The family's name, as messages and files spell it."""

    def encode_prompts(self, pipe: Any, prompts: Sequence[str]) -> dict[str, Tensor]:
        """Text embeddings of the prompts, batch first, on the CPU."""

    def encode_images(self, pipe: Any, pixels: Tensor) -> Posterior:
        """The posterior of images (B, 3, H, W) in [-1, 1], on the CPU."""

    def decode(self, pipe: Any, clean: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [-1, 1] from clean latents, fp32."""

    def takes_guidance(self, transformer: nn.Module) -> bool:
        """Whether the guidance scale is an input of this transformer."""

    def velocity(
        self,
        transformer: nn.Module,
        noisy: Tensor,
        *,
        sigma: Tensor,
        embeddings: Embeddings,
        guidance: float | None = None,
    ) -> Tensor:
        """The predicted velocity (noise - clean) at noisy latents (B, C, H, W) and sigma (B,) in [0, 1],
        fp32."""

    def exchanges(self, transformer: Any) -> Iterable[Exchange]:
        """Where tensors change hands when several processes share the tokens of an image
        (`urae.families.context_parallel`)."""

    def latent_identity(self, pipe: Any) -> str:
        """Hash of what the latents of an image depend on."""

    def text_identity(self, pipe: Any) -> str:
        """Hash of what the embeddings of a prompt depend on; "" for a pipeline without text encoders."""

"""Chroma's layers: FLUX.1's blocks. One network makes the modulation of all blocks from the noise level."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from urae.families.family import LayerUse, Masking
from urae.families.flux.layers import Flow, FluxLayers

__all__ = ["ChromaLayers"]


@dataclass(frozen=True)
class ChromaLayers(FluxLayers):
    """The patterns, widths and exchanges are FLUX.1's. Each block makes a mask of all pairs of tokens."""

    mask: Masking = "pairs"

    def uses(self, transformer: Any, adapted: frozenset[str]) -> Iterator[LayerUse]:
        config = transformer.config
        flow = ChromaFlow(adapted)
        yield from flow.embedders(
            num_layers=config.approximator_layers,
            num_vectors=transformer.time_text_embed.mod_proj.shape[0],
        )
        for index in range(config.num_layers):
            yield from flow.double_block(f"transformer_blocks.{index}", modulated=False)
        for index in range(config.num_single_layers):
            yield from flow.single_block(f"single_transformer_blocks.{index}", modulated=False)
        yield from flow.head()


class ChromaFlow(Flow):
    """A forward pass in which `distilled_guidance_layer` stands for all modulation."""

    def __init__(self, adapted: frozenset[str]) -> None:
        super().__init__(adapted)
        self.time = any(name.startswith(NETWORK) for name in adapted)

    def embedders(self, *, num_layers: int, num_vectors: int) -> Iterator[LayerUse]:  # type: ignore[override]
        yield LayerUse("x_embedder", "image", False)
        state = False
        for name in _network(num_layers):
            yield LayerUse(name, "one", state, vectors=num_vectors)
            state |= name in self.adapted
        yield LayerUse("context_embedder", "text", False)

    def head(self) -> Iterator[LayerUse]:
        yield LayerUse("proj_out", "image", self.image or self.time)


NETWORK = "distilled_guidance_layer"


def _network(num_layers: int) -> Iterator[str]:
    yield f"{NETWORK}.in_proj"
    for index in range(num_layers):
        yield f"{NETWORK}.layers.{index}.linear_1"
        yield f"{NETWORK}.layers.{index}.linear_2"
    yield f"{NETWORK}.out_proj"

"""FLUX.2's layers: double blocks keep image and text apart; a single block has one layer for q, k, v and the MLP's
input, and one behind them for both. All blocks of a kind share their modulation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from urae.families.family import ATTENTION, Exchange, LayerUse, Stream
from urae.families.flux.layers import Flow, FluxLayers

__all__ = ["Flux2Layers"]

PROJECTIONS = ("attn.to_q", "attn.to_k", "attn.to_v")
IN, OUT = "attn.to_qkv_mlp_proj", "attn.to_out"
"""Of a single block."""
MODULATIONS = tuple(
    f"{name}.linear"
    for name in ("double_stream_modulation_img", "double_stream_modulation_txt", "single_stream_modulation")
)
"""For the image and the text in double blocks, and for single blocks."""


@dataclass(frozen=True)
class Flux2Layers(FluxLayers):
    """A single block's attention cannot be trained without its MLP: they are the same layers."""

    attention: tuple[str, ...] = (
        *(f"transformer_blocks.*.{layer}" for layer in (*PROJECTIONS, "attn.to_out.0")),
        *(f"single_transformer_blocks.*.{layer}" for layer in (IN, OUT)),
    )
    wide: tuple[str, ...] = (*attention, "*.ff.linear_in", "*.ff.linear_out")
    shared_inputs: tuple[tuple[str, ...], ...] = (PROJECTIONS,)

    def single_exchanges(self, attention: Any) -> Iterator[Exchange]:
        """The MLP's channels are dealt out as the heads are, since they are rows of the same layers."""
        streams: tuple[Stream, ...] = ("text", "image")
        heads, hidden = attention.inner_dim, attention.mlp_hidden_dim
        parts = (heads, heads, heads, hidden, hidden)
        yield Exchange(module=attention.to_qkv_mlp_proj, after="to_heads", streams=streams, parts=parts)
        yield Exchange(module=attention.to_out, before="to_tokens", streams=streams, parts=(heads, hidden))

    def last_exchange(self, transformer: Any) -> Exchange:
        """Behind the last block, where the transformer cuts the text off by the length that went in."""
        last = transformer.single_transformer_blocks[-1]
        return Exchange(module=last, after="gather", streams=("text", "image"))

    def uses(self, transformer: Any, adapted: frozenset[str]) -> Iterator[LayerUse]:
        config, flow = transformer.config, Flux2Flow(adapted)
        yield from flow.embedders(guided=config.guidance_embeds)
        for index in range(config.num_layers):
            yield from flow.double_block(f"transformer_blocks.{index}")
        for index in range(config.num_single_layers):
            yield from flow.single_block(f"single_transformer_blocks.{index}")
        yield from flow.head()

    def kept(self, block: str, *, copies: bool) -> float:
        """Counted on fake tensors of a block at full width (tests/planning/test_plan_flux2.py)."""
        return KEPT["single" if block.startswith("single") else "double", copies]


class Flux2Flow(Flow):
    """A forward pass in which three layers make the modulation of all blocks."""

    feed_forward = ("ff.linear_in", "ff.linear_out"), ("ff_context.linear_in", "ff_context.linear_out")

    def __init__(self, adapted: frozenset[str]) -> None:
        super().__init__(adapted)
        self.time = any(name.startswith("time_guidance_embed") for name in adapted)

    def embedders(self, *, guided: bool) -> Iterator[LayerUse]:
        for what in ("timestep", *(["guidance"] if guided else [])):
            first, second = (f"time_guidance_embed.{what}_embedder.linear_{layer}" for layer in (1, 2))
            yield LayerUse(first, "one", False)
            yield LayerUse(second, "one", first in self.adapted)
        for name in MODULATIONS:
            yield LayerUse(name, "one", self.time)
        yield LayerUse("x_embedder", "image", False)
        yield LayerUse("context_embedder", "text", False)

    def double_block(self, block: str, *, modulated: bool = False) -> Iterator[LayerUse]:
        self.image |= MODULATIONS[0] in self.adapted
        self.text |= MODULATIONS[1] in self.adapted
        return super().double_block(block, modulated=modulated)

    def single_block(self, block: str, *, modulated: bool = False) -> Iterator[LayerUse]:
        state = self.image or self.text or self.time or MODULATIONS[2] in self.adapted
        attention = state or self._any(block, IN)
        self.image = self.text = attention or self._any(block, OUT)
        uses = [(IN, "joint", state), (ATTENTION, "joint", attention), (OUT, "joint", attention)]
        return self._placed(block, uses, recomputed=self.image)


KEPT = {("double", False): 14.1, ("double", True): 20.7, ("single", False): 13.2, ("single", True): 21.1}
"""Widths per token, by kind of block and by whether there are copies."""

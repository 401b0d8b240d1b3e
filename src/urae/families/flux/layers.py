"""FLUX.1's layers: double blocks keep image and text apart, single blocks join them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from urae.families.family import ATTENTION, Exchange, LayerUse, Masking

__all__ = ["Flow", "FluxLayers"]


@dataclass(frozen=True)
class FluxLayers:
    """`to_out` stands in double blocks only; a single block's `proj_out` joins attention and MLP."""

    attention: tuple[str, ...] = ("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0")
    wide: tuple[str, ...] = (
        *("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0"),
        *("*.ff.net.0.proj", "*.ff.net.2", "proj_mlp", "single_transformer_blocks.*.proj_out"),
    )
    mask: Masking = "none"

    shared_inputs: tuple[tuple[str, ...], ...] = (("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"),)

    def width(self, transformer: Any) -> int:
        heads, channels = self.heads(transformer)
        return heads * channels

    def heads(self, transformer: Any) -> tuple[int, int]:
        return transformer.config.num_attention_heads, transformer.config.attention_head_dim

    def head_groups(self, transformer: Any) -> int:
        return self.heads(transformer)[0]

    def exchanges(self, transformer: Any) -> Iterator[Exchange]:
        """What attention gives back to a double block is cut by the text that went in, so there all of the text goes
        in."""
        yield Exchange(module=transformer.x_embedder, before="share", streams=("image",))
        yield Exchange(module=transformer.context_embedder, before="share", streams=("text",))
        for attention in (block.attn for block in transformer.transformer_blocks):
            yield Exchange(
                module=attention, before="gather", streams=("text",), argument="encoder_hidden_states"
            )
            for layer in (attention.to_q, attention.to_k, attention.to_v):
                yield Exchange(module=layer, after="to_heads", streams=("image",))
            for layer in (attention.add_q_proj, attention.add_k_proj, attention.add_v_proj):
                yield Exchange(module=layer, after="own_heads", streams=("text",))
            yield Exchange(module=attention.to_out[0], before="to_tokens", streams=("image",))
            yield Exchange(module=attention.to_add_out, before="to_tokens", streams=("text",))
        for block in transformer.single_transformer_blocks:
            yield from self.single_exchanges(block.attn)
        yield self.last_exchange(transformer)

    def last_exchange(self, transformer: Any) -> Exchange:
        """Where all tokens are put together again."""
        return Exchange(module=transformer.proj_out, after="gather", streams=("image",))

    def single_exchanges(self, attention: Any) -> Iterator[Exchange]:
        """In the attention of a single block."""
        for layer in (attention.to_q, attention.to_k, attention.to_v):
            yield Exchange(module=layer, after="to_heads", streams=("text", "image"))
        yield Exchange(module=attention, after="to_tokens", streams=("text", "image"))

    def uses(self, transformer: Any, adapted: frozenset[str]) -> Iterator[LayerUse]:
        config = transformer.config
        flow = Flow(adapted)
        yield from flow.embedders(guided=config.guidance_embeds)
        for index in range(config.num_layers):
            yield from flow.double_block(f"transformer_blocks.{index}")
        for index in range(config.num_single_layers):
            yield from flow.single_block(f"single_transformer_blocks.{index}")
        yield from flow.head()

    def kept(self, block: str, *, copies: bool) -> float:
        """Counted on fake tensors of the full-size architecture (tests/planning/test_plan_memory.py)."""
        if block.startswith("single"):
            return 14 if copies else 11
        return 16 if copies else 12


class Flow:
    """Follows a forward pass, and knows of each stream whether it depends on a trained parameter."""

    feed_forward = ("ff.net.0.proj", "ff.net.2"), ("ff_context.net.0.proj", "ff_context.net.2")
    """Of image and text, in a double block."""
    modulations: tuple[str, str] = ("norm1.linear", "norm1_context.linear")
    """The same."""
    streams: tuple[str, str, str] = ("x_embedder", "context_embedder", "time_text_embed")
    """How the names of those layers begin that image, text and time come through first."""

    def __init__(self, adapted: frozenset[str]) -> None:
        self.adapted = adapted
        self.image, self.text, self.time = (
            any(name.startswith(layer) for name in adapted) for layer in self.streams
        )

    def embedders(self, *, guided: bool) -> Iterator[LayerUse]:
        yield LayerUse("x_embedder", "image", False)
        yield LayerUse("context_embedder", "text", False)
        for what in ("timestep", "text", *(["guidance"] if guided else [])):
            first, second = (f"time_text_embed.{what}_embedder.linear_{layer}" for layer in (1, 2))
            yield LayerUse(first, "one", False)
            yield LayerUse(second, "one", first in self.adapted)

    def double_block(self, block: str, *, modulated: bool = True) -> Iterator[LayerUse]:
        """`modulated`: whether the block has layers of its own for that."""
        image = self.image or self._any(block, self.modulations[0]) or self.time
        text = self.text or self._any(block, self.modulations[1]) or self.time
        projections = ("attn.to_q", "attn.to_k", "attn.to_v")
        added = ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj")
        attention = image or text or self._any(block, *projections, *added)
        self.image = image or attention or self._any(block, "attn.to_out.0")
        self.text = text or attention or self._any(block, "attn.to_add_out")
        feed_forward = self.feed_forward
        norms = self.modulations if modulated else ()
        uses = [
            *((name, "one", self.time) for name in norms),
            *((name, "image", image) for name in projections),
            *((name, "text", text) for name in added),
            (ATTENTION, "joint", attention),
            ("attn.to_out.0", "image", attention),
            ("attn.to_add_out", "text", attention),
            (feed_forward[0][0], "image", self.image),
            (feed_forward[0][1], "image", self.image or self._any(block, feed_forward[0][0])),
            (feed_forward[1][0], "text", self.text),
            (feed_forward[1][1], "text", self.text or self._any(block, feed_forward[1][0])),
        ]
        self.image |= self._any(block, *feed_forward[0])
        self.text |= self._any(block, *feed_forward[1])
        return self._placed(block, uses, recomputed=self.image or self.text)

    def single_block(self, block: str, *, modulated: bool = True) -> Iterator[LayerUse]:
        state = self.image or self.text or self._any(block, "norm.linear") or self.time
        projections = ("attn.to_q", "attn.to_k", "attn.to_v")
        attention = state or self._any(block, *projections)
        joined = attention or self._any(block, "proj_mlp")
        self.image = self.text = joined or self._any(block, "proj_out")
        uses = [
            *([("norm.linear", "one", self.time)] if modulated else []),
            *((name, "joint", state) for name in ("proj_mlp", *projections)),
            (ATTENTION, "joint", attention),
            ("proj_out", "joint", joined),
        ]
        return self._placed(block, uses, recomputed=self.image)

    def head(self) -> Iterator[LayerUse]:
        yield LayerUse("norm_out.linear", "one", self.time)
        yield LayerUse("proj_out", "image", self.image or self.time or "norm_out.linear" in self.adapted)

    def _any(self, block: str, *layers: str) -> bool:
        return any(f"{block}.{layer}" in self.adapted for layer in layers)

    def _placed(self, block: str, uses: list[Any], *, recomputed: bool) -> Iterator[LayerUse]:
        for layer, stream, gradient in uses:
            name = layer if layer == ATTENTION else f"{block}.{layer}"
            yield LayerUse(name, stream, gradient, recomputed)

"""Krea 2's layers: blocks of one stream, text in front of the image, with fewer heads of keys and values than of
queries; before them small blocks that fuse the text encoder's layers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from urae.families.family import ATTENTION, Exchange, LayerUse, Masking

__all__ = ["Krea2Layers"]

PROJECTIONS = ("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_gate")
"""Those of the same input."""


@dataclass(frozen=True)
class Krea2Layers:
    """Anchored at `transformer_blocks`, because `text_fusion` has attention of the same names."""

    attention: tuple[str, ...] = tuple(
        f"transformer_blocks.*.{layer}" for layer in (*PROJECTIONS, "attn.to_out.0")
    )
    wide: tuple[str, ...] = (
        *attention,
        *(f"transformer_blocks.*.ff.{layer}" for layer in ("gate", "up", "down")),
    )
    mask: Masking = "keys"
    shared_inputs: tuple[tuple[str, ...], ...] = (PROJECTIONS, ("ff.gate", "ff.up"))

    def width(self, transformer: Any) -> int:
        heads, channels = self.heads(transformer)
        return heads * channels

    def heads(self, transformer: Any) -> tuple[int, int]:
        return transformer.config.num_attention_heads, transformer.config.attention_head_dim

    def head_groups(self, transformer: Any) -> int:
        """12: the heads of keys and values, each with the four heads of queries that look at it."""
        return int(transformer.config.num_key_value_heads)

    def exchanges(self, transformer: Any) -> Iterator[Exchange]:
        """The transformer cuts the text off by the length that went in, so behind the last block all tokens are put
        together again. What fuses the text's layers, each process does for itself."""
        yield Exchange(module=transformer.img_in, before="share", streams=("image",))
        yield Exchange(module=transformer.txt_in, before="share", streams=("text",))
        for attention in (block.attn for block in transformer.transformer_blocks):
            yield Exchange(module=attention, counts=("num_heads", "num_kv_heads"))
            for layer in (attention.to_q, attention.to_k, attention.to_v, attention.to_gate):
                yield Exchange(module=layer, after="to_heads", streams=("text", "image"))
            yield Exchange(module=attention.to_out[0], before="to_tokens", streams=("text", "image"))
        yield Exchange(module=transformer.transformer_blocks[-1], after="gather", streams=("text", "image"))

    def uses(self, transformer: Any, adapted: frozenset[str]) -> Iterator[LayerUse]:
        config, flow = transformer.config, _Flow(adapted)
        yield from flow.time_embedding()
        yield from flow.text_fusion(config)
        yield from flow.embedders()
        for index in range(config.num_layers):
            yield from flow.block(f"transformer_blocks.{index}")
        yield from flow.head()

    def kept(self, block: str, *, copies: bool) -> float:
        """Counted on fake tensors of a block at full width (tests/planning/test_plan_krea2.py)."""
        return KEPT[copies]


class _Flow:
    """Follows a forward pass, and knows of text, image and time whether they depend on a trained parameter."""

    def __init__(self, adapted: frozenset[str]) -> None:
        self.adapted = adapted
        self.text = self.image = self.time = self.modulation = False

    def time_embedding(self) -> Iterator[LayerUse]:
        first, second, modulation = "time_embed.linear_1", "time_embed.linear_2", "time_mod_proj"
        yield LayerUse(first, "one", False)
        yield LayerUse(second, "one", self._any(first))
        self.time = self._any(first, second)
        yield LayerUse(modulation, "one", self.time)
        self.modulation = self.time or self._any(modulation)

    def text_fusion(self, config: Any) -> Iterator[LayerUse]:
        """First a token's layers attend to each other, then, made one, the tokens."""
        layers, width = config.num_text_layers, config.text_hidden_dim
        for index in range(config.num_layerwise_text_blocks):
            yield from self._text_block(f"text_fusion.layerwise_blocks.{index}", width, vectors=layers)
        yield LayerUse("text_fusion.projector", "text", self.text, vectors=width)
        self.text |= self._any("text_fusion.projector")
        for index in range(config.num_refiner_text_blocks):
            yield from self._text_block(f"text_fusion.refiner_blocks.{index}", width)

    def embedders(self) -> Iterator[LayerUse]:
        first, second = "txt_in.linear_1", "txt_in.linear_2"
        yield LayerUse(first, "text", self.text)
        yield LayerUse(second, "text", self.text or self._any(first))
        yield LayerUse("img_in", "image", False)
        self.image = self.text or self._any(first, second, "img_in")

    def block(self, block: str) -> Iterator[LayerUse]:
        """From here on the two streams are one, called image."""
        uses = list(self._layers(block, self.image or self.modulation))
        self.image |= self.modulation or self._adapts(block)
        for layer, gradient in uses:
            name = layer if layer == ATTENTION else f"{block}.{layer}"
            yield LayerUse(name, "joint", gradient, recomputed=self.image)

    def head(self) -> Iterator[LayerUse]:
        yield LayerUse("final_layer.linear", "image", self.image or self.time)

    def _text_block(self, block: str, width: int, *, vectors: int = 1) -> Iterator[LayerUse]:
        for layer, gradient in self._layers(block, self.text):
            if layer == ATTENTION:
                yield LayerUse(layer, "text", gradient, vectors=vectors, width=width)
            else:
                yield LayerUse(f"{block}.{layer}", "text", gradient, vectors=vectors)
        self.text |= self._adapts(block)

    def _layers(self, block: str, state: bool) -> Iterator[tuple[str, bool]]:
        """A block's layers, and whether the input of each depends on a trained parameter."""
        yield from ((layer, state) for layer in PROJECTIONS)
        attended = state or any(f"{block}.{layer}" in self.adapted for layer in PROJECTIONS)
        # The gate comes behind attention itself.
        yield ATTENTION, state or any(f"{block}.{layer}" in self.adapted for layer in PROJECTIONS[:3])
        yield "attn.to_out.0", attended
        middle = attended or f"{block}.attn.to_out.0" in self.adapted
        yield from ((layer, middle) for layer in ("ff.gate", "ff.up"))
        yield "ff.down", middle or any(f"{block}.ff.{layer}" in self.adapted for layer in ("gate", "up"))

    def _adapts(self, block: str) -> bool:
        return any(name.startswith(f"{block}.") for name in self.adapted)

    def _any(self, *layers: str) -> bool:
        return any(layer in self.adapted for layer in layers)


KEPT = {False: 14.0, True: 19.6}
"""Widths per token, by whether there are copies; without them in compiled blocks, of which the norms make none. The
feed-forward layers, 16,384 wide to 6,144, are more than half of it."""

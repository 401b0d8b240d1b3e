"""Z-Image's layers: blocks of one kind. Two refine the image by itself, two the text, and the others have the text
behind the image in one sequence."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from urae.families.family import ATTENTION, Exchange, LayerUse, Masking

__all__ = ["ZImageLayers"]

PROJECTIONS = ("attention.to_q", "attention.to_k", "attention.to_v")
OUT = "attention.to_out.0"
MODULATION = "adaLN_modulation.0"
BLOCKS = ("layers", "noise_refiner")
"""Lists of blocks that image tokens flow through."""


@dataclass(frozen=True)
class ZImageLayers:
    """Anchored at lists of blocks, because the text's refiner has layers of the same names."""

    attention: tuple[str, ...] = tuple(
        f"{block}.*.{layer}" for block in BLOCKS for layer in (*PROJECTIONS, OUT)
    )
    wide: tuple[str, ...] = (
        *attention,
        *(f"{block}.*.feed_forward.w{index}" for block in BLOCKS for index in (1, 2, 3)),
    )
    mask: Masking = "keys"
    """Where texts of one call differ in length."""
    shared_inputs: tuple[tuple[str, ...], ...] = (PROJECTIONS, ("feed_forward.w1", "feed_forward.w3"))

    def width(self, transformer: Any) -> int:
        return int(transformer.config.dim)

    def heads(self, transformer: Any) -> tuple[int, int]:
        heads = transformer.config.n_heads
        return heads, transformer.config.dim // heads

    def head_groups(self, transformer: Any) -> int:
        return int(transformer.config.n_heads)

    def exchanges(self, transformer: Any) -> Iterator[Exchange]:
        raise ValueError(
            "several processes cannot share an image of Z-Image: its transformer counts the tokens of each sample "
            "before it embeds them, and cuts and pads them by these counts; give each process images of its own"
        )

    def uses(self, transformer: Any, adapted: frozenset[str]) -> Iterator[LayerUse]:
        config, flow = transformer.config, _ZImageFlow(adapted)
        yield from flow.time_embedding()
        yield from flow.embedded("all_x_embedder.2-1", "image")
        for index in range(config.n_refiner_layers):
            yield from flow.block(f"noise_refiner.{index}", "image")
        yield from flow.embedded("cap_embedder.1", "text")
        for index in range(config.n_refiner_layers):
            yield from flow.block(f"context_refiner.{index}", "text")
        flow.trained["joint"] = flow.trained["image"] or flow.trained["text"]
        for index in range(config.n_layers):
            yield from flow.block(f"layers.{index}", "joint")
        yield from flow.head()

    def kept(self, block: str, *, copies: bool) -> float:
        """Counted on fake tensors of a block at full width (tests/planning/test_plan_z_image.py)."""
        return KEPT[copies]


Kind = Literal["image", "text", "joint"]


class _ZImageFlow:
    """Follows a forward pass, and knows of each stream whether it depends on a trained parameter."""

    def __init__(self, adapted: frozenset[str]) -> None:
        self.adapted = adapted
        self.trained: dict[Kind, bool] = {}
        self.time = False

    def time_embedding(self) -> Iterator[LayerUse]:
        first, second = "t_embedder.mlp.0", "t_embedder.mlp.2"
        yield LayerUse(first, "one", False)
        yield LayerUse(second, "one", first in self.adapted)
        self.time = bool({first, second} & self.adapted)

    def embedded(self, layer: str, stream: Kind) -> Iterator[LayerUse]:
        yield LayerUse(layer, stream, False)
        self.trained[stream] = layer in self.adapted

    def block(self, block: str, stream: Kind) -> Iterator[LayerUse]:
        modulated = stream != "text"
        uses = list(self._layers(block, stream, modulated))
        self.trained[stream] |= self._adapts(block) or (modulated and self.time)
        if modulated:
            yield LayerUse(f"{block}.{MODULATION}", "one", self.time, recomputed=self.trained[stream])
        for layer, gradient in uses:
            name = layer if layer == ATTENTION else f"{block}.{layer}"
            yield LayerUse(name, stream, gradient, recomputed=self.trained[stream])

    def head(self) -> Iterator[LayerUse]:
        modulation = "all_final_layer.2-1.adaLN_modulation.1"
        yield LayerUse(modulation, "one", self.time)
        gradient = self.trained["joint"] or self.time or modulation in self.adapted
        yield LayerUse("all_final_layer.2-1.linear", "joint", gradient)

    def _layers(self, block: str, stream: Kind, modulated: bool) -> Iterator[tuple[str, bool]]:
        """A block's layers, and whether the input of each depends on a trained parameter."""
        state = self.trained[stream] or (modulated and (self.time or self._any(block, MODULATION)))
        yield from ((layer, state) for layer in PROJECTIONS)
        attended = state or self._any(block, *PROJECTIONS)
        yield ATTENTION, attended
        yield OUT, attended
        middle = attended or self._any(block, OUT)
        yield from ((f"feed_forward.{layer}", middle) for layer in ("w1", "w3"))
        yield "feed_forward.w2", middle or self._any(block, "feed_forward.w1", "feed_forward.w3")

    def _adapts(self, block: str) -> bool:
        return any(name.startswith(f"{block}.") for name in self.adapted)

    def _any(self, block: str, *layers: str) -> bool:
        return any(f"{block}.{layer}" in self.adapted for layer in layers)


KEPT = {False: 14.5, True: 30.1}
"""Widths per token, by whether there are copies; without them in compiled blocks. Each block has four norms of
the whole width, which diffusers does not compute in one kernel."""

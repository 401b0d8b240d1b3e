"""Qwen-Image's layers: in every block image and text have layers of their own and attend to each other. What the last
block makes of the text, nobody reads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from urae.families.family import Exchange, LayerUse, Masking
from urae.families.flux.layers import Flow, FluxLayers

__all__ = ["QwenImageLayers"]

PROJECTIONS = ("attn.to_q", "attn.to_k", "attn.to_v")
TEXT_MLP = ("txt_mlp.net.0.proj", "txt_mlp.net.2")


@dataclass(frozen=True)
class QwenImageLayers(FluxLayers):
    """The image stream's, as FLUX.1's targets are those of its double blocks."""

    attention: tuple[str, ...] = tuple(
        f"transformer_blocks.*.{layer}" for layer in (*PROJECTIONS, "attn.to_out.0")
    )
    wide: tuple[str, ...] = (
        *attention,
        *(f"transformer_blocks.*.img_mlp.net.{layer}" for layer in ("0.proj", "2")),
    )
    mask: Masking = "keys"
    """Where texts of one call differ in length."""
    shared_inputs: tuple[tuple[str, ...], ...] = (PROJECTIONS,)

    def exchanges(self, transformer: Any) -> Iterator[Exchange]:
        raise ValueError(
            "several processes cannot share an image of Qwen-Image: its attention makes the mask from the tokens that "
            "a process has, before those of the others are there; give each process images of its own"
        )

    def uses(self, transformer: Any, adapted: frozenset[str]) -> Iterator[LayerUse]:
        flow, num = QwenImageFlow(adapted), transformer.config.num_layers
        yield from flow.embedders(guided=False)
        for index in range(num):
            yield from flow.double_block(f"transformer_blocks.{index}", is_last=index == num - 1)
        yield from flow.head()

    def kept(self, block: str, *, copies: bool) -> float:
        """Counted on fake tensors of a block at full width (tests/planning/test_plan_qwen_image.py)."""
        return KEPT[copies]


class QwenImageFlow(Flow):
    """A forward pass without single blocks."""

    feed_forward = ("img_mlp.net.0.proj", "img_mlp.net.2"), TEXT_MLP
    modulations = ("img_mod.1", "txt_mod.1")
    streams = ("img_in", "txt_in", "time_text_embed")

    def embedders(self, *, guided: bool) -> Iterator[LayerUse]:
        first, second = (f"time_text_embed.timestep_embedder.linear_{layer}" for layer in (1, 2))
        yield LayerUse("img_in", "image", False)
        yield LayerUse("txt_in", "text", False)
        yield LayerUse(first, "one", False)
        yield LayerUse(second, "one", first in self.adapted)

    def double_block(
        self, block: str, *, modulated: bool = True, is_last: bool = False
    ) -> Iterator[LayerUse]:
        for use in super().double_block(block, modulated=modulated):
            is_unread = is_last and use.name.endswith((*TEXT_MLP, "attn.to_add_out"))
            yield replace(use, gradient=False) if is_unread else use


KEPT = {False: 13.4, True: 17.7}
"""Widths per token, by whether there are copies; without them in compiled blocks."""

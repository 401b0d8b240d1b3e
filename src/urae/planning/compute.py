"""How many floating-point operations a training step takes, layer by layer.

A linear layer takes two for each weight and token, attention 4 d for each pair of tokens (d: the
transformer's width). The backward pass of a frozen base has no gradients of weights, and none of anything
below the first adapter: each layer is asked whether its input depends on a trained parameter. What
checkpointing computes again is counted too. The counts equal those of torch's own counter
(tests/planning/test_compute.py).

The only file of this room that knows the layers of FLUX.1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from urae.adapters import Full, Mica, Spec
from urae.adapters.targets import linear_layers, parameter_owners, select
from urae.execution.budget import width_of
from urae.execution.choices import Checkpointing
from urae.planning.adapter import effective_rank

__all__ = ["Tokens", "Trained", "Work", "step_work", "trained_by"]

Stream = Literal["image", "text", "joint", "one"]
"""What flows through a layer: image tokens, text tokens, both, or one vector an image."""


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """Lengths of what flows, for one image."""

    image: int
    text: int

    def of(self, stream: Stream) -> int:
        return {"image": self.image, "text": self.text, "joint": self.joint, "one": 1}[stream]

    @property
    def joint(self) -> int:
        return self.image + self.text


@dataclass(frozen=True, kw_only=True)
class Work:
    """Operations for one image in one training step."""

    forward: int
    backward: int
    again: int
    """Computed once more, because checkpointing did not keep it."""

    @property
    def total(self) -> int:
        return self.forward + self.backward + self.again


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A transformer's layers, in the order in which they run, and what a spec trains of them."""

    spec: Spec
    width: int
    sides: Mapping[str, tuple[int, int]]
    """(in, out) features of the linear layers."""
    adapted: frozenset[str]
    """Names of the linear layers that are trained or added to."""
    uses: tuple[_Use, ...]

    def blocks(self) -> dict[str, list[str]]:
        """The blocks that keep something for the backward pass, with their adapted layers."""
        names = [use.name for use in self.uses if use.recomputed and use.name != ATTENTION]
        found: dict[str, list[str]] = {}
        for name in names:
            block = ".".join(name.split(".")[:2])
            found.setdefault(block, []).extend([name] if name in self.adapted else [])
        return found


def trained_by(transformer: Any, spec: Spec) -> Trained:
    """What `spec` trains on this stock transformer, which may be on the meta device."""
    layers = linear_layers(transformer)
    owners = parameter_owners(transformer) if isinstance(spec, Full) else layers
    adapted = frozenset(select(owners, spec.targets)) & frozenset(layers)
    config = transformer.config
    return Trained(
        spec=spec,
        width=width_of(transformer),
        sides={name: (layer.in_features, layer.out_features) for name, layer in layers.items()},
        adapted=adapted,
        uses=tuple(_uses(config, adapted)),
    )


def step_work(trained: Trained, tokens: Tokens, checkpointing: Checkpointing) -> Work:
    """The operations of a training step, for one image."""
    forward = backward = again = 0
    for use in trained.uses:
        there, back = (
            _attention(trained, use, tokens) if use.name == ATTENTION else _linear(trained, use, tokens)
        )
        kept = use.name == ATTENTION and checkpointing == "attention"
        forward, backward = forward + there, backward + back
        again += there * (use.recomputed and bool(checkpointing) and not kept)
    return Work(forward=forward, backward=backward, again=again)


def _attention(trained: Trained, use: _Use, tokens: Tokens) -> tuple[int, int]:
    # Backward: five products instead of two, because the fused kernels compute the weights again.
    pairs = trained.width * tokens.joint**2
    return 4 * pairs, 10 * pairs * use.gradient


def _linear(trained: Trained, use: _Use, tokens: Tokens) -> tuple[int, int]:
    """Operations forward and backward of one layer with its adapter."""
    num, (inputs, outputs) = 2 * tokens.of(use.stream), trained.sides[use.name]
    there = num * inputs * outputs
    back = there * use.gradient
    if use.name in trained.adapted and isinstance(trained.spec, Full):
        back += there
    elif use.name in trained.adapted:
        A, B = (num * effective_rank(trained.spec) * side for side in (inputs, outputs))
        there += A + B
        # The gradients of A and of B's input; of B and of A's input where there is any.
        back += A + B + B * (not isinstance(trained.spec, Mica)) + A * use.gradient
    return there, back


# --- the layers of FLUX.1, in the order in which they run ----------------------------------------------------

ATTENTION = "attention"


@dataclass(frozen=True)
class _Use:
    """A layer, or attention, at its place."""

    name: str
    stream: Stream
    gradient: bool
    """Whether its input depends on a trained parameter."""
    recomputed: bool = False
    """Whether it lies in a block whose backward pass needs its activations."""


def _uses(config: Any, adapted: frozenset[str]) -> Iterator[_Use]:
    flow = _Flow(adapted)
    yield from flow.embedders(config)
    for index in range(config.num_layers):
        yield from flow.double_block(f"transformer_blocks.{index}")
    for index in range(config.num_single_layers):
        yield from flow.single_block(f"single_transformer_blocks.{index}")
    yield from flow.head()


class _Flow:
    """Follows a forward pass, and knows of each stream whether it depends on a trained parameter."""

    def __init__(self, adapted: frozenset[str]) -> None:
        self.adapted = adapted
        self.image, self.text, self.time = (
            any(name.startswith(layer) for name in adapted)
            for layer in ("x_embedder", "context_embedder", "time_text_embed")
        )

    def embedders(self, config: Any) -> Iterator[_Use]:
        yield _Use("x_embedder", "image", False)
        yield _Use("context_embedder", "text", False)
        embedded = ("timestep", "text", *(["guidance"] if config.guidance_embeds else []))
        for what in embedded:
            first, second = (f"time_text_embed.{what}_embedder.linear_{layer}" for layer in (1, 2))
            yield _Use(first, "one", False)
            yield _Use(second, "one", first in self.adapted)

    def double_block(self, block: str) -> Iterator[_Use]:
        image = self.image or self._any(block, "norm1.linear") or self.time
        text = self.text or self._any(block, "norm1_context.linear") or self.time
        projections = ("attn.to_q", "attn.to_k", "attn.to_v")
        added = ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj")
        attention = image or text or self._any(block, *projections, *added)
        self.image = image or attention or self._any(block, "attn.to_out.0")
        self.text = text or attention or self._any(block, "attn.to_add_out")
        feed_forward = ("ff.net.0.proj", "ff.net.2"), ("ff_context.net.0.proj", "ff_context.net.2")
        uses = [
            *((name, "one", self.time) for name in ("norm1.linear", "norm1_context.linear")),
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

    def single_block(self, block: str) -> Iterator[_Use]:
        state = self.image or self.text or self._any(block, "norm.linear") or self.time
        projections = ("attn.to_q", "attn.to_k", "attn.to_v")
        attention = state or self._any(block, *projections)
        joined = attention or self._any(block, "proj_mlp")
        self.image = self.text = joined or self._any(block, "proj_out")
        uses = [
            ("norm.linear", "one", self.time),
            *((name, "joint", state) for name in ("proj_mlp", *projections)),
            (ATTENTION, "joint", attention),
            ("proj_out", "joint", joined),
        ]
        return self._placed(block, uses, recomputed=self.image)

    def head(self) -> Iterator[_Use]:
        yield _Use("norm_out.linear", "one", self.time)
        yield _Use("proj_out", "image", self.image or self.time or "norm_out.linear" in self.adapted)

    def _any(self, block: str, *layers: str) -> bool:
        return any(f"{block}.{layer}" in self.adapted for layer in layers)

    def _placed(self, block: str, uses: list[Any], *, recomputed: bool) -> Iterator[_Use]:
        for layer, stream, gradient in uses:
            name = layer if layer == ATTENTION else f"{block}.{layer}"
            yield _Use(name, stream, gradient, recomputed)

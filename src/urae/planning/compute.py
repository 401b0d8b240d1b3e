"""How many floating-point operations a training step takes, layer by layer.

A linear layer takes two for each weight and token, attention 4 d for each pair of tokens (d: the
transformer's width). The backward pass of a frozen base has no gradients of weights, and none of anything
below the first adapter: each layer is asked whether its input depends on a trained parameter. What
checkpointing computes again is counted too. The counts equal those of torch's own counter
(tests/planning/test_compute.py). Which layers there are, and in which order they run, the model's family says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from urae.adapters import Full, Mica, Spec
from urae.adapters.targets import linear_layers, parameter_owners, resolved, select
from urae.execution.choices import Checkpointing
from urae.families import family_of
from urae.families.family import ATTENTION, LayerUse
from urae.planning.adapter import effective_rank

__all__ = ["Tokens", "Trained", "Work", "step_work", "trained_by"]


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """Lengths of what flows, for one image."""

    image: int
    text: int

    def of(self, stream: str) -> int:
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
    uses: tuple[LayerUse, ...]

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
    spec, layers = resolved(spec, transformer), linear_layers(transformer)
    owners = parameter_owners(transformer) if isinstance(spec, Full) else layers
    adapted = frozenset(select(owners, spec.targets)) & frozenset(layers)
    family = family_of(transformer).layers
    return Trained(
        spec=spec,
        width=family.width(transformer),
        sides={name: (layer.in_features, layer.out_features) for name, layer in layers.items()},
        adapted=adapted,
        uses=tuple(family.uses(transformer, adapted)),
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


def _attention(trained: Trained, use: LayerUse, tokens: Tokens) -> tuple[int, int]:
    # Backward: five products instead of two, because the fused kernels compute the weights again.
    num, each = tokens.of(use.stream), use.vectors
    pairs = (use.width or trained.width) * (num * each**2 if each > 1 else num**2)
    return 4 * pairs, 10 * pairs * use.gradient


def _linear(trained: Trained, use: LayerUse, tokens: Tokens) -> tuple[int, int]:
    """Operations forward and backward of one layer with its adapter."""
    num, (inputs, outputs) = 2 * tokens.of(use.stream) * use.vectors, trained.sides[use.name]
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

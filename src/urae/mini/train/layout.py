"""What is where: labels of scenes, and a head whose loss teaches it.

The loss of the velocity says little about which of two objects is on the left: a blend of both is nearly as good.
So `pairs` adds the cross entropy of two linear heads, which are left out of the weights in the end: T5's state of a
noun tells the places of its object, and each hidden image token half-way through the transformer tells which object
is there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers import FluxPipeline
from torch import nn

from urae.mini.recogniser import GLYPHS
from urae.mini.world import OBJECTS, UNITS, Scene

SIDE = UNITS // 16
"""Of the grid of image tokens."""

NONE = -1
"""In place of the noun of a second object."""


@dataclass(frozen=True)
class Placed:
    """What is where in scenes, two objects at most."""

    glyphs: torch.Tensor
    """(B, 64): 1 + the index in `GLYPHS` of the object at each image token, 0 for none."""
    nouns: torch.Tensor
    """(B, 2): T5's token of each object's name, or `NONE`."""
    covered: torch.Tensor
    """(B, 2, 64), bool: the image tokens of each object."""

    def of(self, rows: torch.Tensor) -> Placed:
        return Placed(self.glyphs[rows], self.nouns[rows], self.covered[rows])


def placed(tokenizer: Any, scenes: Sequence[Scene]) -> Placed:
    names = {name: tokenizer(name, add_special_tokens=False).input_ids for name in OBJECTS}
    assert all(len(tokens) == 1 for tokens in names.values())  # the vocabulary is the world's words
    nouns = torch.full((len(scenes), 2), NONE)
    covered = torch.zeros(len(scenes), 2, SIDE**2, dtype=torch.bool)
    glyphs = torch.zeros(len(scenes), SIDE**2, dtype=torch.long)
    for i, one in enumerate(scenes):
        for k, thing in enumerate(one.things):
            nouns[i, k] = names[thing.name][0]
            covered[i, k] = covered_by(thing.x, thing.y, thing.size)
            glyphs[i, covered[i, k]] = 1 + GLYPHS.index((thing.name, thing.style))
    return Placed(glyphs, nouns, covered)


def covered_by(x: int, y: int, size: int) -> torch.Tensor:
    """The image tokens of whose squares an object's square covers half or more, (64,); in units of 1/128."""
    inside = np.zeros((UNITS, UNITS), dtype=np.float32)
    inside[max(y - size // 2, 0) : y + size // 2, max(x - size // 2, 0) : x + size // 2] = 1
    shares = inside.reshape(SIDE, 16, SIDE, 16).mean(axis=(1, 3))
    return torch.from_numpy(shares >= 0.5).flatten()


def noun_loss(head: nn.Module, states: torch.Tensor, tokens: torch.Tensor, placed: Placed) -> torch.Tensor:
    """Mean binary cross entropy of the places of each noun, told by `head` from T5's states (B, length, width) of
    captions with these tokens; of nouns that are in their captions."""
    device = states.device
    tokens, nouns, covered = tokens.to(device), placed.nouns.to(device), placed.covered.to(device)
    here = tokens[:, None] == nouns[..., None]  # (B, 2, length)
    row, which = here.any(-1).nonzero(as_tuple=True)
    told = head(states[row, here.float().argmax(-1)[row, which]].float())
    return nn.functional.binary_cross_entropy_with_logits(told, covered[row, which].float())


class Layout(nn.Module):
    """Both heads, and what they read: watch a pipeline, run it, ask for the loss."""

    def __init__(self, pipe: FluxPipeline, *, after: int, share: float, middle: float) -> None:
        """The image tokens are read after single block number `after`; the loss counts `share`; `middle` is that
        of the noise levels, in logits: higher than without, since the text decides while little is to be seen."""
        super().__init__()
        self.places = nn.Linear(pipe.text_encoder_2.config.d_model, SIDE**2)
        self.objects = nn.Linear(pipe.transformer.inner_dim, 1 + len(GLYPHS))
        self.after, self.share, self.middle = after, share, middle
        self.states: torch.Tensor | None = None
        self.hidden: torch.Tensor | None = None

    def watch(self, pipe: FluxPipeline) -> None:
        """From now on. The block may be compiled: what is read is read around it."""
        pipe.text_encoder_2.register_forward_hook(lambda module, args, out: setattr(self, "states", out[0]))
        block = pipe.transformer.single_transformer_blocks[self.after]
        run = "forward" if block._compiled_call_impl is None else "_compiled_call_impl"
        inner = getattr(block, run)

        def outer(*args: Any, **kwargs: Any) -> Any:
            out = inner(*args, **kwargs)
            self.hidden = out[1]
            return out

        setattr(block, run, outer)

    def loss(self, tokens: torch.Tensor, placed: Placed) -> tuple[torch.Tensor, float]:
        """For the batch that ran last, and the share of image tokens with objects that are told rightly, in [0, 1].
        Image tokens with objects and those without count 4 : 1."""
        assert self.hidden is not None
        assert self.states is not None
        told = self.objects(self.hidden.float()).flatten(0, 1)
        glyphs = placed.glyphs.to(told.device).flatten()
        there = glyphs > 0
        entropy = nn.functional.cross_entropy(told, glyphs, reduction="none")
        objects = 0.8 * entropy[there].mean() + 0.2 * entropy[~there].mean()
        right = (told.argmax(-1) == glyphs)[there].float().mean().item()
        return self.share * (objects + 4 * noun_loss(self.places, self.states, tokens, placed)), right

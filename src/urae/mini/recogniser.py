"""What a picture shows, told by a small network trained on true renderings only.

Every picture is reduced to 64 px, so the same network judges 128, 256 and 512 px by what they show, not by
how sharp they are. Each of 8 x 8 places votes for each glyph (object in a style); the strongest place
decides, and where it lies gives the relation of two objects. It has never seen a generated picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from urae.mini.world import BACKGROUNDS, OBJECTS, STYLES, Scene

__all__ = ["Recogniser", "Seen", "recogniser"]

INPUT = 64
GLYPHS = [(name, style) for style in STYLES for name in OBJECTS]
GROUNDS = sorted(BACKGROUNDS)
WEIGHTS = Path(__file__).parent / "recogniser.safetensors"


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What the recogniser sees in one picture."""

    objects: tuple[tuple[str, str], ...]
    """(object, style), the most certain first, as many as were asked for."""
    places: tuple[tuple[int, int], ...]
    """(row, column) of each on an 8 x 8 grid."""
    background: str

    def agrees(self, scene: Scene) -> dict[str, bool]:
        """Whether `object`s (all of them), their `style`s, `background` and `relation` are those of
        `scene`."""
        names = [name for name, _ in self.objects]
        wanted = [thing.name for thing in scene.things]
        found = sorted(names) == sorted(wanted)
        styles = dict(self.objects)
        verdict = {
            "object": found,
            "style": found and all(styles[t.name] == t.style for t in scene.things),
            "background": self.background == scene.background,
        }
        if scene.relation:
            verdict["relation"] = found and self._relation(wanted) == scene.relation
        return verdict

    def _relation(self, names: list[str]) -> str:
        at = {name: place for (name, _), place in zip(self.objects, self.places, strict=True)}
        (row, column), (other_row, other_column) = at[names[0]], at[names[1]]
        if abs(other_column - column) >= abs(other_row - row):
            return "left of" if other_column > column else "right of"
        return "above" if other_row > row else "below"


class Recogniser(nn.Module):
    """(B, 3, 64, 64) in [-1, 1] -> glyph votes (B, 120, 8, 8) and background logits (B, 10)."""

    def __init__(self) -> None:
        super().__init__()
        widths = [3, 32, 64, 96, 128, 128]
        strides = [2, 2, 2, 1, 1]
        layers: list[nn.Module] = []
        for before, after, stride in zip(widths, widths[1:], strides, strict=False):
            layers += [nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        self.body = nn.Sequential(*layers)
        self.glyphs = nn.Conv2d(widths[-1], len(GLYPHS), 1)
        self.ground = nn.Linear(widths[-1], len(GROUNDS))

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = self.body(pixels)
        return self.glyphs(features), self.ground(features.mean((2, 3)))

    @torch.no_grad()
    def look(self, images: Sequence[Image.Image], counts: Sequence[int]) -> list[Seen]:
        """What each image shows, given how many different objects to name in it."""
        votes, grounds = self(torch.stack([to_input(image) for image in images]))
        return [
            self._seen(vote, ground, count)
            for vote, ground, count in zip(votes, grounds, counts, strict=True)
        ]

    def _seen(self, votes: torch.Tensor, grounds: torch.Tensor, count: int) -> Seen:
        best, where = votes.flatten(1).max(dim=1)
        objects: list[tuple[str, str]] = []
        places = []
        for index in best.argsort(descending=True).tolist():
            if len(objects) < count and GLYPHS[index][0] not in {name for name, _ in objects}:
                objects.append(GLYPHS[index])
                places.append(divmod(int(where[index]), votes.shape[-1]))
        return Seen(objects=tuple(objects), places=tuple(places), background=GROUNDS[int(grounds.argmax())])


def to_input(image: Image.Image) -> torch.Tensor:
    """An RGB image as (3, 64, 64) in [-1, 1], reduced by area."""
    pixels = np.asarray(image.convert("RGB").resize((INPUT, INPUT), Image.Resampling.BOX), dtype=np.float32)
    return torch.from_numpy(pixels / 127.5 - 1).permute(2, 0, 1)


def recogniser() -> Recogniser:
    """The shipped recogniser."""
    network = Recogniser()
    network.load_state_dict(load_file(WEIGHTS))
    return network.float().eval()

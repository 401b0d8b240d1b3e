"""Metrics of the miniature's world only, by its own recogniser: meaningless on any other picture.

The recogniser has seen true renderings and nothing else, so these are to the miniature what CLIP and Inception are to
photographs, and they can be checked: truth is available without limit.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from PIL import Image

from urae.metrics.crops import MINI_SIDE as SIDE
from urae.metrics.crops import native_crops
from urae.metrics.metric import Options
from urae.metrics.pictures import MeasuredPicture
from urae.metrics.weights import LocalWeights
from urae.mini.recogniser import WEIGHTS, Recogniser, recogniser, to_input
from urae.mini.world import BACKGROUNDS, OBJECTS, STYLES, Scene, Thing

__all__ = [
    "AlignmentReader",
    "MiniPatchReader",
    "RecognitionReader",
    "open_alignment",
    "open_patches",
    "open_recognition",
    "scene_of",
]


@dataclass(frozen=True, kw_only=True)
class _MiniReader:
    device: str

    @cached_property
    def network(self) -> Recogniser:
        return recogniser().to(self.device)

    @property
    def identity(self) -> str:
        return f"{type(self).__name__} {LocalWeights(WEIGHTS).sha256}"


@dataclass(frozen=True, kw_only=True)
class RecognitionReader(_MiniReader):
    """The probability of the object that the recogniser is most certain of, whatever was asked for."""

    def read(self, samples: Sequence[MeasuredPicture]) -> list[np.ndarray]:
        with torch.inference_mode():
            votes, _ = self.network(_reduced([sample.image for sample in samples]).to(self.device))
            # The smooth maximum that the recogniser was trained with.
            logits = torch.logsumexp(votes.flatten(2) * 2, dim=2) / 2 - 2
        return [np.array(value) for value in logits.max(dim=1).values.sigmoid().tolist()]


@dataclass(frozen=True, kw_only=True)
class AlignmentReader(_MiniReader):
    """The share of what the prompt says, of objects, styles, background and relation, that is seen."""

    def read(self, samples: Sequence[MeasuredPicture]) -> list[np.ndarray]:
        scenes = [scene_of(sample.prompt) for sample in samples]
        # `look` is written for the CPU.
        seen = self.network.cpu().look([s.image for s in samples], [len(scene.things) for scene in scenes])
        verdicts = [look.agrees(scene) for look, scene in zip(seen, scenes, strict=True)]
        return [np.array(float(np.mean(list(verdict.values())))) for verdict in verdicts]


@dataclass(frozen=True, kw_only=True)
class MiniPatchReader(_MiniReader):
    """(num_crops, 896) features of native 64 px crops: mean and deviation, over places, of each of the recogniser's
    channels in each of its layers. The deviations see blur and compression, which leave means as they are."""

    num_crops: int

    @property
    def identity(self) -> str:
        return f"{super().identity} {self.num_crops}"

    def read(self, samples: Sequence[MeasuredPicture]) -> list[np.ndarray]:
        return [self._features(sample.image) for sample in samples]

    def _features(self, image: Image.Image) -> np.ndarray:
        x = _reduced(native_crops(image, side=SIDE, num=self.num_crops)).to(self.device)
        found = []
        with torch.inference_mode():
            for layer in self.network.body:
                x = layer(x)
                if isinstance(layer, torch.nn.ReLU):
                    found += [x.mean((2, 3)), x.std((2, 3))]
        return torch.cat(found, 1).cpu().numpy()


def open_recognition(weights: None, options: Options) -> RecognitionReader:
    """By the shipped recogniser."""
    return RecognitionReader(device=options.device)


def open_alignment(weights: None, options: Options) -> AlignmentReader:
    """By the shipped recogniser."""
    return AlignmentReader(device=options.device)


def open_patches(weights: None, options: Options) -> MiniPatchReader:
    """By the shipped recogniser."""
    return MiniPatchReader(device=options.device, num_crops=options.num_crops)


def scene_of(caption: str) -> Scene:
    """The scene that a caption, short or detailed, describes; places say no more than the relation."""
    thing = re.compile(rf"\b({'|'.join(STYLES)}) ({'|'.join(OBJECTS)})\b")
    found = list(thing.finditer(caption))
    ground = re.search(rf"on a ({'|'.join(BACKGROUNDS)}) background", caption)
    if not (1 <= len(found) <= 2 and ground):
        raise ValueError(
            f"{caption!r} describes no scene of the miniature: expected words such as 'a flat tiger left of a glossy "
            "umbrella on a wood background'"
        )
    places = [(64, 64)] if len(found) == 1 else _places(caption[found[0].end() : found[1].start()])
    things = [
        Thing(name=match[2], style=match[1], x=x, y=y, size=56)
        for match, (x, y) in zip(found, places, strict=True)
    ]
    return Scene(things=tuple(things), background=ground[1], label="")


def _places(between: str) -> list[tuple[int, int]]:
    """Places of two objects whose relation is the last one named between them."""
    by_relation = {
        "left of": [(32, 64), (96, 64)],
        "right of": [(96, 64), (32, 64)],
        "above": [(64, 32), (64, 96)],
        "below": [(64, 96), (64, 32)],
    }
    named = {relation: between.rfind(relation) for relation in by_relation}
    relation = max(named, key=lambda name: named[name])
    if named[relation] < 0:
        raise ValueError(f"{between!r} names no relation: expected {', '.join(by_relation)}")
    return by_relation[relation]


def _reduced(images: Sequence[Image.Image]) -> torch.Tensor:
    return torch.stack([to_input(image) for image in images])

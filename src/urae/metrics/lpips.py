"""LPIPS v0.1 (Zhang et al., 2018): weighted distance of AlexNet's or VGG's features, layer by layer.

One safetensors file holds the trunk under torchvision's names (`features.0.weight`, ...) and the learned weights of
the five layers under those of the `lpips` package (`lin0.model.1.weight`, ...). Which trunk it is shows in the file:
AlexNet begins with an 11 x 11 convolution.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from urae.errors import BadFile
from urae.metrics.clip import channels
from urae.metrics.metric import Options
from urae.metrics.pictures import MeasuredPicture
from urae.metrics.weights import LocalWeights

__all__ = ["LpipsReader", "lpips_distance", "open_lpips"]

MEAN, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
ALEX: Sequence[Sequence[int]] = ((0,), (3,), (6,), (8,), (10,))
VGG: Sequence[Sequence[int]] = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))
"""Places of the convolutions in the trunk; the features after each group count."""
SMALLEST = 31
"""Pixels from which on AlexNet's pools have something left; VGG's have from 16."""


@dataclass(frozen=True, kw_only=True)
class LpipsReader:
    """The distance of each picture to its partner, at full size."""

    weights: LocalWeights
    device: str

    @property
    def identity(self) -> str:
        return f"lpips 0.1 {self.weights.sha256}"

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        return {name: tensor.to(self.device) for name, tensor in self.weights.tensors().items()}

    def read(self, samples: Sequence[MeasuredPicture]) -> list[np.ndarray]:
        # One pair at a time: at 4096 px a pair alone fills gigabytes.
        return [np.array(self._distance(sample)) for sample in samples]

    def _distance(self, sample: MeasuredPicture) -> float:
        image, reference = sample.image, sample.reference
        if image.size != reference.size:
            raise ValueError(
                f"{sample.name} is {image.width}x{image.height} px and its reference {reference.width}x"
                f"{reference.height}: expected equal sizes, as LPIPS compares place by place"
            )
        if min(image.size) < SMALLEST:
            raise ValueError(
                f"{sample.name} is {image.width}x{image.height} px: LPIPS needs at least {SMALLEST} px a side"
            )
        with torch.inference_mode():
            return float(lpips_distance(self._pixels(image), self._pixels(reference), self.tensors))

    def _pixels(self, image: Image.Image) -> Tensor:
        return (channels(image)[None] / 127.5 - 1).to(self.device)


def open_lpips(weights: LocalWeights, options: Options) -> LpipsReader:
    """AlexNet or VGG, as the file has it."""
    return LpipsReader(weights=weights, device=options.device)


def lpips_distance(x: Tensor, y: Tensor, tensors: dict[str, Tensor]) -> Tensor:
    """(B, 3, H, W) each in [-1, 1] -> (B,)."""
    try:
        layers = zip(_features(x, tensors), _features(y, tensors), strict=True)
        heads = [tensors[f"lin{i}.model.1.weight"] for i in range(5)]
    except KeyError as error:
        raise BadFile(f"these are not LPIPS weights: {error.args[0]} is missing") from error
    distances = [
        F.conv2d((a - b) ** 2, head).mean((1, 2, 3)) for (a, b), head in zip(layers, heads, strict=True)
    ]
    return torch.stack(distances).sum(0)


def _features(pixels: Tensor, tensors: dict[str, Tensor]) -> list[Tensor]:
    """The five layers' features, each place of length 1 over its channels."""
    alex = tensors["features.0.weight"].shape[-1] == 11
    mean, scale = (pixels.new_tensor(values).view(1, 3, 1, 1) for values in (MEAN, SCALE))
    x, found = (pixels - mean) / scale, []
    for layer, group in enumerate(ALEX if alex else VGG):
        # AlexNet pools before its second and third convolution, VGG before every group but the first.
        if layer in ((1, 2) if alex else (1, 2, 3, 4)):
            x = F.max_pool2d(x, 3 if alex else 2, 2)
        for place in group:
            x = F.relu(_convolution(x, place, tensors, alex))
        found.append(x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10))
    return found


def _convolution(x: Tensor, place: int, tensors: dict[str, Tensor], alex: bool) -> Tensor:
    weight, bias = tensors[f"features.{place}.weight"], tensors[f"features.{place}.bias"]
    first = alex and place == 0
    return F.conv2d(x, weight, bias, stride=4 if first else 1, padding=2 if first else weight.shape[-1] // 2)

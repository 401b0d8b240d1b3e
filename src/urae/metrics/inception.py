"""Features of the Inception v3 that FID is defined by, from a safetensors file of the published weights.

The network is that of the TensorFlow graph `inception-2015-12-05`, which differs from the common Inception v3 in its
pools: borders do not count in averages, and the last block takes the maximum. It is written as a function of the
named tensors, so that kernel sizes and widths are those of the file, and nothing but torch is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from urae.errors import BadFile
from urae.metrics.crops import INCEPTION_SIDE as SIDE
from urae.metrics.crops import native_crops
from urae.metrics.metric import Options
from urae.metrics.pictures import MeasuredPicture
from urae.metrics.weights import LocalWeights

__all__ = ["InceptionReader", "inception_features", "open_inception", "resized"]

EPSILON = 1e-3
"""Of the batch normalisation."""


@dataclass(frozen=True, kw_only=True)
class InceptionReader:
    """(1, 2048) features of the whole picture at 299 px, or (num_crops, 2048) of native crops of that side."""

    weights: LocalWeights
    device: str
    num_crops: int
    """0 for the whole picture."""

    @property
    def identity(self) -> str:
        what = f"{self.num_crops} native crops" if self.num_crops else "whole, clean bicubic"
        return f"inception {self.weights.sha256} {what} of {SIDE}"

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        return {name: tensor.to(self.device) for name, tensor in self.weights.tensors().items()}

    def read(self, samples: Sequence[MeasuredPicture]) -> list[np.ndarray]:
        views = [self._views(sample.image) for sample in samples]
        pixels = torch.from_numpy(np.concatenate(views)).to(self.device)
        with torch.inference_mode():
            batches = [inception_features(part, self.tensors) for part in pixels.split(max(1, len(samples)))]
        rows = torch.cat(batches).cpu().numpy()
        return np.split(rows, np.cumsum([len(view) for view in views])[:-1])

    def _views(self, image: Image.Image) -> np.ndarray:
        """(views, 3, 299, 299), gray levels."""
        if not self.num_crops:
            return resized(image, SIDE)[None]
        crops = native_crops(image, side=SIDE, num=self.num_crops)
        return np.stack([np.asarray(crop, dtype=np.float32).transpose(2, 0, 1) for crop in crops])


def open_inception(weights: LocalWeights, options: Options, *, crops: bool) -> InceptionReader:
    """Native crops, or the whole picture, resized."""
    num_crops = options.num_crops if crops else 0
    return InceptionReader(weights=weights, device=options.device, num_crops=num_crops)


def resized(image: Image.Image, side: int) -> np.ndarray:
    """(3, side, side) float32 gray levels within [0, 255]: each channel by Pillow's antialiased bicubic filter, without
    rounding (Parmar et al., 2022, "clean")."""
    channels = np.moveaxis(np.asarray(image, dtype=np.float32), 2, 0)
    small = [Image.fromarray(channel).resize((side, side), Image.Resampling.BICUBIC) for channel in channels]
    # The filter overshoots at edges.
    return np.stack([np.asarray(channel, dtype=np.float32) for channel in small]).clip(0, 255)


def inception_features(pixels: Tensor, tensors: dict[str, Tensor]) -> Tensor:
    """(B, 3, 299, 299) gray levels of 255 -> (B, 2048), the average pool before the classifier."""
    try:
        return _Graph(tensors).run((pixels - 128) / 128)
    except KeyError as error:
        raise BadFile(
            f"these are not the weights of the FID Inception: {error.args[0]} is missing"
        ) from error


@dataclass(frozen=True)
class _Graph:
    tensors: dict[str, Tensor]

    def run(self, x: Tensor) -> Tensor:
        x = self.conv(x, "Conv2d_1a_3x3", stride=2, same=False)
        x = self.conv(x, "Conv2d_2a_3x3", same=False)
        x = F.max_pool2d(self.conv(x, "Conv2d_2b_3x3"), 3, 2)
        x = self.conv(self.conv(x, "Conv2d_3b_1x1"), "Conv2d_4a_3x3", same=False)
        x = F.max_pool2d(x, 3, 2)
        for name in ("Mixed_5b", "Mixed_5c", "Mixed_5d"):
            x = self.squares(x, name)
        x = self.reduction(
            x, "Mixed_6a", ("branch3x3",), ("branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3")
        )
        for name in ("Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"):
            x = self.strips(x, name)
        sevens = tuple(f"branch7x7x3_{i}" for i in (1, 2, 3, 4))
        x = self.reduction(x, "Mixed_7a", ("branch3x3_1", "branch3x3_2"), sevens)
        x = self.expanded(x, "Mixed_7b", _average_pool)
        x = self.expanded(x, "Mixed_7c", _max_pool)
        return x.mean((2, 3))

    def conv(self, x: Tensor, name: str, *, stride: int = 1, same: bool = True) -> Tensor:
        """Convolution without bias, batch normalisation, ReLU."""
        weight = self.tensors[f"{name}.conv.weight"]
        padding = (weight.shape[2] // 2, weight.shape[3] // 2) if same else (0, 0)
        x = F.conv2d(x, weight, stride=stride, padding=padding)
        mean, variance, scale, shift = (
            self.tensors[f"{name}.bn.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return F.relu(F.batch_norm(x, mean, variance, scale, shift, eps=EPSILON))

    def chain(self, x: Tensor, block: str, names: Sequence[str]) -> Tensor:
        for name in names:
            x = self.conv(x, f"{block}.{name}")
        return x

    def squares(self, x: Tensor, block: str) -> Tensor:
        """35 x 35: branches of 1 x 1, 5 x 5, two 3 x 3, and a pool."""
        branches = [
            self.chain(x, block, ["branch1x1"]),
            self.chain(x, block, ["branch5x5_1", "branch5x5_2"]),
            self.chain(x, block, ["branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"]),
            self.chain(_average_pool(x), block, ["branch_pool"]),
        ]
        return torch.cat(branches, 1)

    def strips(self, x: Tensor, block: str) -> Tensor:
        """17 x 17: 7 x 7 convolutions as rows and columns."""
        branches = [
            self.chain(x, block, ["branch1x1"]),
            self.chain(x, block, [f"branch7x7_{i}" for i in (1, 2, 3)]),
            self.chain(x, block, [f"branch7x7dbl_{i}" for i in (1, 2, 3, 4, 5)]),
            self.chain(_average_pool(x), block, ["branch_pool"]),
        ]
        return torch.cat(branches, 1)

    def reduction(self, x: Tensor, block: str, *branches: Sequence[str]) -> Tensor:
        """Half the side: the last convolution of each branch has stride 2 and no border."""
        halves = [
            self.conv(self.chain(x, block, names[:-1]), f"{block}.{names[-1]}", stride=2, same=False)
            for names in branches
        ]
        return torch.cat([*halves, F.max_pool2d(x, 3, 2)], 1)

    def expanded(self, x: Tensor, block: str, pool: Callable[[Tensor], Tensor]) -> Tensor:
        """8 x 8: 3 x 3 convolutions as a row and a column side by side."""
        single = self.chain(x, block, ["branch3x3_1"])
        double = self.chain(x, block, ["branch3x3dbl_1", "branch3x3dbl_2"])
        branches = [
            self.chain(x, block, ["branch1x1"]),
            *(self.conv(single, f"{block}.branch3x3_2{side}") for side in "ab"),
            *(self.conv(double, f"{block}.branch3x3dbl_3{side}") for side in "ab"),
            self.chain(pool(x), block, ["branch_pool"]),
        ]
        return torch.cat(branches, 1)


def _average_pool(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)


def _max_pool(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 3, 1, 1)

"""Metrics that see a picture through a CLIP model, from a local folder of transformers.

Pictures are prepared here and not by an image processor, whose backends give different numbers: Pillow's bicubic
filter on the shorter side, the middle square, OpenAI's mean and deviation. Only the first 77 tokens of a prompt count.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from urae.errors import BadFile
from urae.metrics.metric import Options
from urae.metrics.pictures import MeasuredPicture
from urae.metrics.weights import LocalWeights

__all__ = [
    "AgreementReader",
    "EmbeddingReader",
    "Towers",
    "channels",
    "cropped_square",
    "middle_square",
    "normalised",
    "open_clip_folder",
    "open_clip_score",
    "open_cmmd",
    "open_pickscore",
    "whole",
]

MEAN = (0.48145466, 0.4578275, 0.40821073)
DEVIATION = (0.26862954, 0.26130258, 0.27577711)
TOKENS = 77

Prepare = Callable[[Image.Image, int], Tensor]
"""A picture and the network's side in pixels -> (3, side, side)."""


@dataclass(frozen=True, kw_only=True)
class Towers:
    """A CLIP model and its tokenizer on a device."""

    model: Any
    tokenizer: Any
    device: str

    @property
    def side(self) -> int:
        """Pixels of the square that it sees."""
        return self.model.config.vision_config.image_size

    @property
    def logit_scale(self) -> float:
        """The learned temperature, exponentiated."""
        return self.model.logit_scale.exp().item()

    def pictures(self, pixels: Tensor) -> Tensor:
        """(B, 3, side, side) -> (B, dims), each of length 1."""
        pooled = self.model.vision_model(pixel_values=pixels.to(self.device)).pooler_output
        return torch.nn.functional.normalize(self.model.visual_projection(pooled), dim=1)

    def texts(self, prompts: Sequence[str]) -> Tensor:
        """(B, dims), each of length 1."""
        tokens = self.tokenizer(
            list(prompts), padding=True, truncation=True, max_length=TOKENS, return_tensors="pt"
        ).to(self.device)
        pooled = self.model.text_model(
            input_ids=tokens.input_ids, attention_mask=tokens.attention_mask
        ).pooler_output
        return torch.nn.functional.normalize(self.model.text_projection(pooled), dim=1)


@dataclass(frozen=True, kw_only=True)
class AgreementReader:
    """A multiple of the cosine between a picture and its prompt."""

    name: str
    weights: LocalWeights
    device: str
    open: Callable[[LocalWeights, str], Towers]
    prepare: Prepare
    score: Callable[[float, Towers], float]
    clean: Callable[[str], str] = str
    """What is done to a prompt before the tokenizer sees it."""

    @property
    def identity(self) -> str:
        return f"{self.name} {self.weights.sha256}"

    @cached_property
    def towers(self) -> Towers:
        return self.open(self.weights, self.device)

    def read(self, samples: Sequence[MeasuredPicture]) -> list[np.ndarray]:
        with torch.inference_mode():
            pixels = torch.stack([self.prepare(sample.image, self.towers.side) for sample in samples])
            pictures = self.towers.pictures(pixels)
            texts = self.towers.texts([self.clean(sample.prompt) for sample in samples])
        cosines = (pictures * texts).sum(1).tolist()
        return [np.array(self.score(cosine, self.towers)) for cosine in cosines]


@dataclass(frozen=True, kw_only=True)
class EmbeddingReader:
    """(1, dims) embeddings of the whole picture, or of its middle square."""

    weights: LocalWeights
    device: str
    sees: str
    prepare: Prepare

    @property
    def identity(self) -> str:
        return f"clip embedding, {self.sees}, bicubic {self.weights.sha256}"

    @cached_property
    def towers(self) -> Towers:
        return open_clip_folder(self.weights, self.device)

    def read(self, samples: Sequence[MeasuredPicture]) -> list[np.ndarray]:
        with torch.inference_mode():
            pixels = torch.stack([self.prepare(sample.image, self.towers.side) for sample in samples])
            return list(self.towers.pictures(pixels).cpu().numpy()[:, None])


def open_clip_score(weights: LocalWeights, options: Options) -> AgreementReader:
    """100 times the cosine, 0 where it is negative."""
    return _agreement("clip score", weights, options, _clip_score)


def open_pickscore(weights: LocalWeights, options: Options) -> AgreementReader:
    """The cosine times the model's own temperature."""
    return _agreement("pickscore", weights, options, _pick_score)


def open_cmmd(weights: LocalWeights, options: Options, *, published: bool) -> EmbeddingReader:
    """Embeddings of length 1, of the whole picture, or of its middle square, which is what the authors' published code
    cuts out first."""
    sees, prepare = ("middle square", cropped_square) if published else ("whole picture", whole)
    return EmbeddingReader(weights=weights, device=options.device, sees=sees, prepare=prepare)


def open_clip_folder(weights: LocalWeights, device: str) -> Towers:
    """Model and tokenizer of a folder that `CLIPModel.from_pretrained` reads, safetensors only, fp32."""
    # transformers takes many seconds to import, and metrics without a network need none of it.
    from transformers import CLIPModel, CLIPTokenizer

    if not any(weights.path.glob("*.safetensors")):
        raise BadFile(f"{weights.path} holds no model.safetensors, and nothing else is read as weights")
    model = CLIPModel.from_pretrained(
        weights.path, local_files_only=True, use_safetensors=True, dtype=torch.float32
    )
    tokenizer = CLIPTokenizer.from_pretrained(weights.path, local_files_only=True)
    return Towers(model=model.eval().to(device), tokenizer=tokenizer, device=device)


def middle_square(image: Image.Image, side: int) -> Tensor:
    """The shorter side to `side` by Pillow's bicubic filter, then the middle: what CLIP's own processor does."""
    scale = side / min(image.size)
    longer = int(side * max(image.size) / min(image.size))
    size = (side, longer) if image.width <= image.height else (longer, side)
    small = image if scale == 1 else image.resize(size, Image.Resampling.BICUBIC)
    left, top = (small.width - side) // 2, (small.height - side) // 2
    return normalised(channels(small.crop((left, top, left + side, top + side))) / 255)


def whole(image: Image.Image, side: int) -> Tensor:
    """The whole picture as a square of `side`, by Pillow's bicubic filter."""
    return normalised(channels(image.resize((side, side), Image.Resampling.BICUBIC)) / 255)


def cropped_square(image: Image.Image, side: int) -> Tensor:
    """The middle square at full size, then to `side` by Pillow's bicubic filter."""
    cut = min(image.size)
    left, top = (image.width - cut) // 2, (image.height - cut) // 2
    return whole(image.crop((left, top, left + cut, top + cut)), side)


def normalised(pixels: Tensor) -> Tensor:
    """(3, H, W) in [0, 1] less CLIP's mean, over its deviation."""
    return (pixels - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(DEVIATION).view(3, 1, 1)


def channels(image: Image.Image) -> Tensor:
    """(3, H, W) gray levels of an RGB image."""
    return torch.from_numpy(np.asarray(image, dtype=np.float32).transpose(2, 0, 1).copy())


def _clip_score(cosine: float, towers: Towers) -> float:
    return 100 * max(cosine, 0.0)


def _pick_score(cosine: float, towers: Towers) -> float:
    return towers.logit_scale * cosine


def _agreement(
    name: str, weights: LocalWeights, options: Options, score: Callable[[float, Towers], float]
) -> AgreementReader:
    return AgreementReader(
        name=name,
        weights=weights,
        device=options.device,
        open=open_clip_folder,
        prepare=middle_square,
        score=score,
    )

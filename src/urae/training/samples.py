"""Sample images while a run goes on, each beside what the base model makes of the same prompt and noise."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from urae.training.prediction import autocast
from urae.training.recipe import Recipe

__all__ = ["Sampler", "lean_pipeline"]


def lean_pipeline(pipe: Any) -> Any:
    """The same pipeline without its text encoders, so that they may stay behind on the CPU: it shares every
    other part, and is called with embeddings."""
    parts = {
        name: None if name.startswith(("text_encoder", "tokenizer")) else part
        for name, part in pipe.components.items()
    }
    lean = type(pipe)(**parts)
    lean.set_progress_bar_config(disable=True)  # it would run through the training's own
    return lean


class Sampler:
    """Draws a recipe's sample images; the pipeline runs as it is, under whatever policy is on.

    `samples/base-00.png` is the first prompt before training, `samples/step-000200-00.png` the same prompt
    and noise after 200 steps, with the base's image at its left.
    """

    def __init__(self, pipe: Any, recipe: Recipe, *, embeddings: dict[str, Tensor]) -> None:
        self.pipe, self.recipe, self.embeddings = pipe, recipe, embeddings
        self.folder = Path(recipe.out) / "samples"
        self.folder.mkdir(parents=True, exist_ok=True)

    def draw_base(self) -> None:
        """The images of the base model, those that are not there yet."""
        for index in self._places:
            if not self._base(index).is_file():
                _save(self._image(index), self._base(index))

    def draw(self, step: int) -> list[Path]:
        """The images after this step, base at the left; returns the files."""
        files = [self.folder / f"step-{step:06d}-{index:02d}.png" for index in self._places]
        for index, file in enumerate(files):
            _save(_side_by_side(Image.open(self._base(index)), self._image(index)), file)
        return files

    @property
    def _places(self) -> range:
        return range(len(self.recipe.sample_prompts))

    def _base(self, index: int) -> Path:
        return self.folder / f"base-{index:02d}.png"

    def _image(self, index: int) -> Image.Image:
        recipe = self.recipe
        with autocast(self.pipe.transformer.device, recipe.base_dtype):
            return self.pipe(
                **{name: tensor[index : index + 1] for name, tensor in self.embeddings.items()},
                width=recipe.size,
                height=recipe.size,
                num_inference_steps=recipe.sample_steps,
                guidance_scale=recipe.sample_guidance,
                generator=torch.Generator().manual_seed(index),
            ).images[0]


def _side_by_side(left: Image.Image, right: Image.Image) -> Image.Image:
    pair = Image.new("RGB", (left.width + right.width, right.height))
    pair.paste(left, (0, 0))
    pair.paste(right, (left.width, 0))
    return pair


def _save(image: Image.Image, path: Path) -> None:
    temporary = path.with_suffix(".tmp")
    image.save(temporary, format="png")
    os.replace(temporary, path)

"""Sample images while a run goes on, each beside what the base model makes of the same prompt and noise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from urae.families import Drawing, family_of
from urae.io import Unreadable, picture_texts, read_picture, write_png
from urae.training.prediction import autocast
from urae.training.recipe import Recipe

__all__ = ["Sampler", "has_negative", "lean_pipeline"]


def lean_pipeline(pipe: Any) -> Any:
    """The same pipeline without its text encoders, so that they may stay behind on the CPU: it shares every
    other part, and is called with embeddings."""
    text = family_of(pipe).text
    parts = {
        name: None if name in (*text.encoders, *text.tokenizers) else part
        for name, part in pipe.components.items()
    }
    settings = {name: pipe.config[name] for name in pipe._get_signature_keys(pipe)[1]}
    lean = type(pipe)(**parts, **settings)
    lean.set_progress_bar_config(disable=True)  # it would run through the training's own
    return lean


def has_negative(pipe: Any, recipe: Recipe) -> bool:
    """Whether each step of a sample image takes a second call of the transformer, with a negative prompt."""
    return recipe.sample_guidance > 1 and family_of(pipe).guidance.kind(pipe) == "cfg"


class Sampler:
    """Draws a recipe's sample images; the pipeline runs as it is, under whatever policy is on.

    `samples/base-00.png` is the first prompt before training, `samples/step-000200-00.png` the same prompt
    and noise after 200 steps, with the base's image at its left.
    """

    def __init__(
        self,
        pipe: Any,
        recipe: Recipe,
        *,
        embeddings: dict[str, Tensor],
        negative: str | dict[str, Tensor],
        base: str,
    ) -> None:
        """negative: what guidance leads away from, as `Drawing` has it. base: what the base's images depend on beside
        the recipe, as text."""
        self.pipe, self.recipe, self.embeddings, self.base = pipe, recipe, embeddings, base
        self.negative = negative
        self.folder = Path(recipe.out) / "samples"

    def draw_base(self) -> None:
        """The images of the base model, those that are not there from an earlier start of this run."""
        for index in self._places:
            if not self._is_kept(index):
                self._save(self._image(index), self._base(index), index)

    def draw(self, step: int) -> list[Path]:
        """The images after this step, base at the left; returns the files."""
        files = [self.folder / f"step-{step:06d}-{index:02d}.png" for index in self._places]
        for index, file in enumerate(files):
            pair = _side_by_side(read_picture(self._base(index)), self._image(index))
            self._save(pair, file, index)
        return files

    @property
    def _places(self) -> range:
        return range(len(self.recipe.sample_prompts))

    def _base(self, index: int) -> Path:
        return self.folder / f"base-{index:02d}.png"

    def _is_kept(self, index: int) -> bool:
        try:
            read_picture(self._base(index))
            return picture_texts(self._base(index)).get("origin") == self._origin(index)
        except Unreadable:
            return False

    def _save(self, image: Image.Image, path: Path, index: int) -> None:
        write_png(image, path, texts={"origin": self._origin(index)})

    def _origin(self, index: int) -> str:
        recipe = self.recipe
        settings = [recipe.size, recipe.sample_steps, recipe.sample_guidance, recipe.base_dtype]
        return json.dumps([recipe.shown_prompts[index], *settings, self.base])

    def _image(self, index: int) -> Image.Image:
        recipe = self.recipe
        with autocast(self.pipe.transformer.device, recipe.base_dtype):
            return family_of(self.pipe).pipelines.draw(self.pipe, self._drawing(index))

    def _drawing(self, index: int) -> Drawing:
        recipe = self.recipe
        return Drawing(
            prompt={name: tensor[index : index + 1] for name, tensor in self.embeddings.items()},
            negative=self.negative,
            size=(recipe.size, recipe.size),
            guidance=recipe.sample_guidance,
            steps=recipe.sample_steps,
            settings={"generator": torch.Generator().manual_seed(index)},
        )


def _side_by_side(left: Image.Image, right: Image.Image) -> Image.Image:
    pair = Image.new("RGB", (left.width + right.width, right.height))
    pair.paste(left, (0, 0))
    pair.paste(right, (left.width, 0))
    return pair

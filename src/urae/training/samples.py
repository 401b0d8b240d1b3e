"""Sample images while a run goes on, each beside what the base model makes of the same prompt and noise."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from urae.execution import TokenSharing
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
    and noise after 200 steps, with the base's image at its left. Each process draws its own, alone; an image that is
    there from an earlier start of this run is not drawn again.
    """

    def __init__(
        self,
        pipe: Any,
        recipe: Recipe,
        *,
        places: Sequence[int],
        embeddings: dict[str, Tensor],
        negative: str | dict[str, Tensor],
        identity: Mapping[str, Any],
        sharing: TokenSharing,
    ) -> None:
        """places: of the prompts that this process draws. negative: what guidance leads away from, as `Drawing` has it.
        identity: of the run, as its checkpoints have it."""
        self.pipe, self.recipe, self.places, self.embeddings = pipe, recipe, places, embeddings
        self.negative, self.identity, self.sharing = negative, identity, sharing
        self.folder = Path(recipe.out) / "samples"

    def draw_base(self) -> None:
        """The images of the base model."""
        names = ("base", "base_weights", "start", "policy")
        for index in self.places:
            self._make(self._base(index), index, [self.identity[name] for name in names])

    def draw(self, step: int) -> None:
        """The images after this step, base at the left."""
        for index in self.places:
            self._make(self.folder / f"step-{step:06d}-{index:02d}.png", index, dict(self.identity))

    def _base(self, index: int) -> Path:
        return self.folder / f"base-{index:02d}.png"

    def _make(self, path: Path, index: int, depends_on: Any) -> None:
        recipe = self.recipe
        settings = [recipe.size, recipe.sample_steps, recipe.sample_guidance, recipe.base_dtype]
        origin = json.dumps([recipe.shown_prompts[index], *settings, depends_on])
        if _is_kept(path, origin):
            return
        with self.sharing.paused():
            image = self._image(index)
        if path != self._base(index):
            image = _side_by_side(read_picture(self._base(index)), image)
        write_png(image, path, texts={"origin": origin})

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


def _is_kept(path: Path, origin: str) -> bool:
    try:
        read_picture(path)
        return picture_texts(path).get("origin") == origin
    except Unreadable:
        return False


def _side_by_side(left: Image.Image, right: Image.Image) -> Image.Image:
    pair = Image.new("RGB", (left.width + right.width, right.height))
    pair.paste(left, (0, 0))
    pair.paste(right, (left.width, 0))
    return pair

"""Ultra-resolution adaptation of image diffusion transformers: 2K and 4K from a model made for 1K.

    pipe = urae.mini.pipeline()                                   # or any stock FluxPipeline
    adapter = urae.train(pipe, urae.recipes.mini_2x(data="pictures", out="run"))
    image = urae.generate(pipe, "a flat tiger on a wood background", size=(256, 256), adapter=adapter)

Runs on stock diffusers, peft, transformers and accelerate; see README.md for the whole.
"""

from urae import mini, recipes, theory
from urae.adapters import Adapter, Full, Lora, Major, Mica, Minor
from urae.errors import UraeError
from urae.generation import generate
from urae.resolution import ResolutionPolicy
from urae.training import Recipe, train

__all__ = [
    "Adapter",
    "Full",
    "Lora",
    "Major",
    "Mica",
    "Minor",
    "Recipe",
    "ResolutionPolicy",
    "UraeError",
    "generate",
    "mini",
    "recipes",
    "theory",
    "train",
]

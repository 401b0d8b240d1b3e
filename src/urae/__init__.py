"""Ultra-resolution adaptation of image diffusion transformers: 2K and 4K from a model made for 1K.

    pipe = urae.mini.shipped()                                   # or any stock FluxPipeline
    adapter = urae.train(pipe, urae.recipes.mini_2x(data="pictures", out="run"))
    image = urae.generate(pipe, "a flat tiger on a wood background", size=(256, 256), adapter=adapter)

Runs on stock diffusers, peft, transformers and accelerate; see README.md for the whole. What is exported is
imported when it is first used.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from urae.exports import lazily

# transformers warns at import that image processors want torchvision; nothing here uses one.
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

if TYPE_CHECKING:
    from urae import mini, recipes, theory
    from urae.adapters import Adapter, Full, Lora, Major, Mica, Minor, Stack
    from urae.errors import UraeError
    from urae.generation import generate
    from urae.metrics import evaluate
    from urae.planning import plan
    from urae.resolution import ResolutionPolicy
    from urae.training import Recipe, train

__getattr__, __dir__, __all__ = lazily(__name__)

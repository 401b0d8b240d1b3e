"""The miniature: a world of captioned scenes, and a trained FLUX small enough to ship.

pipe = urae.mini.shipped()                       # a stock FluxPipeline, native size 128 px
urae.mini.scene(7).caption()                      # what scene 7 shows
urae.mini.clean(7, 512).image                     # the truth at 512 px, as a teacher gives it
urae.mini.real(7, 512).image                      # the same as the web gives it
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from urae.exports import lazily

if TYPE_CHECKING:
    from urae.mini.pictures import Damage, Picture, clean, real, write_dataset
    from urae.mini.shipped import ADAPTERS, WEIGHTS, adapter_file, pipeline
    from urae.mini.world import (
        BACKGROUNDS,
        FAMILIAR,
        OBJECTS,
        RELATIONS,
        STYLES,
        Scene,
        Thing,
        familiar_scene,
        render,
        scene,
    )

__getattr__, __dir__, __all__ = lazily(__name__)

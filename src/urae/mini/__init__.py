"""The miniature: a world of captioned scenes, and a trained FLUX small enough to ship.

pipe = urae.mini.pipeline()                       # a stock FluxPipeline, native size 128 px
urae.mini.scene(7).caption()                      # what scene 7 shows
urae.mini.clean(7, 512).image                     # the truth at 512 px, as a teacher gives it
urae.mini.real(7, 512).image                      # the same as the web gives it
"""

from urae.mini.pictures import Damage, Picture, clean, real, write_dataset
from urae.mini.pipeline import WEIGHTS, pipeline
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

__all__ = [
    "BACKGROUNDS",
    "FAMILIAR",
    "OBJECTS",
    "RELATIONS",
    "STYLES",
    "WEIGHTS",
    "Damage",
    "Picture",
    "Scene",
    "Thing",
    "clean",
    "familiar_scene",
    "pipeline",
    "real",
    "render",
    "scene",
    "write_dataset",
]

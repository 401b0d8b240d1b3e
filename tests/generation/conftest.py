import pytest
from diffusers import FluxPipeline

from urae.mini.model import build_pipeline, build_vae


@pytest.fixture(scope="session")
def untrained() -> FluxPipeline:
    """The miniature before training: a whole pipeline with text encoders, native 128 px, random weights."""
    pipe = build_pipeline(build_vae().eval())
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture
def speaking(untrained) -> FluxPipeline:
    """The same, with parts that a test may swap or move: a pipeline of its own around the shared weights."""
    pipe = FluxPipeline(**untrained.components)
    pipe.set_progress_bar_config(disable=True)
    return pipe

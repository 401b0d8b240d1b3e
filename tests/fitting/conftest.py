"""The miniature with its trained weights: on random ones no policy is better than another."""

import pytest
from diffusers import FluxPipeline

from urae import mini


@pytest.fixture(scope="session")
def pipeline() -> FluxPipeline:
    """Native 128 px."""
    return mini.pipeline()

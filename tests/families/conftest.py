"""The families of the conformance matrix. Three that differ most are in `make test`, all in `make test-thorough`."""

import pytest
from tiny_families import TINY, Tiny

FIRST = ("flux1", "z_image", "qwen_image")
CASES = [
    pytest.param(tiny, id=tiny.golden, marks=[] if tiny.golden in FIRST else pytest.mark.thorough)
    for tiny in TINY
]


@pytest.fixture(scope="session", params=CASES)
def tiny(request) -> Tiny:
    """Each family in turn."""
    return request.param

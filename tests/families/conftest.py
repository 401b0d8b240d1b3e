"""The families of the conformance matrix."""

import pytest
from tiny_families import TINY, Tiny


@pytest.fixture(scope="session", params=TINY, ids=lambda tiny: tiny.golden)
def tiny(request) -> Tiny:
    """Each family in turn."""
    return request.param

"""One page for the tests of a module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from ui_page import Page, serving


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Iterator[Page]:
    with serving(tmp_path_factory.mktemp("page")) as page:
        yield page

"""Cases of parametrised tests."""

from __future__ import annotations

from typing import Any

import pytest


def thorough(*values: Any, id: str | None = None) -> Any:
    """A case that `make test-thorough` and CI run, and `make test` does not."""
    return pytest.param(*values, marks=pytest.mark.thorough, id=id)

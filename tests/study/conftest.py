"""Candidates, a study of them, and its site."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from study_material import Site, draw, running, small_study

from urae.study.manifest import Study, read_study


@pytest.fixture(scope="session")
def drawn(tmp_path_factory) -> dict[str, Path]:
    """Not to be changed by a test."""
    return draw(tmp_path_factory.mktemp("drawn"))


@pytest.fixture
def candidates(drawn, tmp_path) -> dict[str, Path]:
    return {name: Path(shutil.copytree(folder, tmp_path / name)) for name, folder in drawn.items()}


@pytest.fixture(scope="session")
def built(drawn, tmp_path_factory) -> Path:
    """Copied for each test: encoding the pictures takes longer than most tests."""
    return small_study(drawn, tmp_path_factory.mktemp("built") / "study").folder


@pytest.fixture
def study(built, tmp_path) -> Study:
    return read_study(shutil.copytree(built, tmp_path / "study"))


@pytest.fixture
def site(study) -> Iterator[Site]:
    with running(study) as site:
        yield site

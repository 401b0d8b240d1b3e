"""Candidates on the disk, and their prompts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from judge_material import PROMPTS, draw


@pytest.fixture
def folders(tmp_path) -> dict[str, Path]:
    """Brighter is better in the eyes of the oracle: bright > middle > dark."""
    levels = {"dark": 60, "bright": 180, "middle": 120}
    return {name: draw(tmp_path / name, level, seed=level) for name, level in levels.items()}


@pytest.fixture
def two(folders) -> dict[str, Path]:
    return {name: folders[name] for name in ("dark", "bright")}


@pytest.fixture
def prompts_file(tmp_path) -> Path:
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps({"id": k, "prompt": v}) + "\n" for k, v in PROMPTS.items()))
    return path

"""A tiny pipeline that reads captions, captioned images, and recipes that train on them in a second."""

from __future__ import annotations

from typing import Any

import pytest

from tiny import with_text_encoders, write_images
from urae.adapters import Lora
from urae.training import Recipe


@pytest.fixture
def pipe(pipe):
    return with_text_encoders(pipe)


@pytest.fixture
def pipe_folder(pipe, tmp_path):
    pipe.save_pretrained(tmp_path / "pipe")
    return tmp_path / "pipe"


@pytest.fixture(scope="session")
def images(tmp_path_factory):
    """Nine images of two shapes; what is cached of them stays for all tests."""
    return write_images(tmp_path_factory.mktemp("data") / "images", [(128, 128)] * 5 + [(192, 144)] * 4)


@pytest.fixture
def recipe(tmp_path, images):
    """A function: keywords -> Recipe."""

    def made(**changes: Any) -> Recipe:
        settings = {
            "model": "tiny",
            "data": str(images),
            "out": str(tmp_path / "run"),
            "size": 128,
            "adapter": Lora(rank=4),
            "steps": 4,
            "batch_size": 2,
            "optimizer": "adamw",
            "lr": 1e-3,
            "base_dtype": "fp32",
            "gradient_checkpointing": False,
            "checkpoint_every": 0,
            "loggers": (),
        }
        return Recipe(**{**settings, **changes})

    return made

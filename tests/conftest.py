"""Parts that many tests use: the tiny transformers of the golden values, and a tiny random pipeline."""

from __future__ import annotations

import gc
import json
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, FluxPipeline, FluxTransformer2DModel
from torch._subclasses.fake_tensor import FakeTensorMode

from autoencoders import vae_of
from tiny_pipelines import GOLDEN, golden_transformer, tiny_pipeline
from urae.mini.model import build_pipeline, build_vae

LONGEST = (
    "docs/test_pages.py",
    "planning/test_plan_memory.py",
    "mini/test_miniature_benchmark.py",
    "mini/test_training.py",
    "mini/test_pipeline.py",
    "training/test_processes.py",
    "training/test_resume.py",
)
"""Files that take longest, which begin first: one of them begun last would keep one core busy while others idle."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    tests = Path(__file__).parent
    order = {tests / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path, len(order)))


def pytest_collection_finish() -> None:
    # What has been imported stays: each full search for garbage would go through it for a quarter of a second.
    gc.freeze()


@pytest.fixture(scope="session")
def golden_meta() -> dict:
    return json.loads((GOLDEN / "meta.json").read_text())


@pytest.fixture
def transformer() -> FluxTransformer2DModel:
    return golden_transformer()


@pytest.fixture
def pipe() -> FluxPipeline:
    return tiny_pipeline()


@pytest.fixture
def embeds() -> dict[str, torch.Tensor]:
    """Text embeddings for one prompt of 7 tokens, as keyword arguments of a pipeline call."""
    generator = torch.Generator().manual_seed(1)
    return {
        "prompt_embeds": torch.randn(1, 7, 32, generator=generator),
        "pooled_prompt_embeds": torch.randn(1, 24, generator=generator),
    }


@pytest.fixture(scope="session")
def weightless() -> tuple[AutoencoderKL, FakeTensorMode]:
    """A wide VAE that computes shapes alone, under the mode that comes with it."""
    with FakeTensorMode() as fake:
        return vae_of((64, 128, 256, 256), sample_size=128, layers=2, groups=32), fake


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


@pytest.fixture(scope="session")
def small_parts(untrained) -> dict:
    """The text encoders of the miniature with a transformer and VAE that cost next to nothing, native 64 px."""
    torch.manual_seed(0)
    config = {
        **untrained.transformer.config,
        "num_layers": 1,
        "num_single_layers": 1,
        "num_attention_heads": 2,
        "attention_head_dim": 16,
        "axes_dims_rope": (4, 6, 6),
    }
    vae = AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        block_out_channels=[8, 8, 8, 8],
        layers_per_block=1,
        latent_channels=16,
        norm_num_groups=2,
        sample_size=64,
        shift_factor=0.1,
        scaling_factor=0.4,
    )
    transformer = FluxTransformer2DModel.from_config(config)
    return untrained.components | {"transformer": transformer.eval(), "vae": vae.eval()}


@pytest.fixture
def small(small_parts) -> FluxPipeline:
    """A pipeline of these parts."""
    pipe = FluxPipeline(**small_parts)
    pipe.set_progress_bar_config(disable=True)
    return pipe

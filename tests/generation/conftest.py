import pytest
import torch
from diffusers import AutoencoderKL, FluxPipeline, FluxTransformer2DModel

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

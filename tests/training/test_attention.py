import pytest
import torch
from accelerate import Accelerator

from urae.training.attention import KEEPABLE, KERNELS, fastest_attention, measured_kernels

SHAPE = (1, 300, 4, 16)


def test_every_kernel_that_runs_here_is_measured():
    seconds = measured_kernels(
        ("native", "_native_math", "flash", "_flash_3"),
        SHAPE,
        device=torch.device("cpu"),
        dtype=torch.float32,
    )
    assert seconds.keys() == {"native", "_native_math"}  # flash-attn is for CUDA
    assert all(value > 0 for value in seconds.values())


def test_on_a_cpu_nothing_is_chosen(transformer):
    with fastest_attention(
        transformer, Accelerator(cpu=True), num_tokens=9, num_images=1, checkpointing=False
    ) as name:
        assert name == ""


@pytest.mark.parametrize("name", KERNELS)
def test_the_kernels_are_diffusers_own_names(name):
    from diffusers.models.attention_dispatch import AttentionBackendName

    assert AttentionBackendName(name).value == name
    assert set(KEEPABLE) <= set(KERNELS)

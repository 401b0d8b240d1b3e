import pytest
import torch

from urae.execution import attention
from urae.execution.attention import (
    KEEPABLE,
    KERNELS,
    attention_for_training,
    measured_kernels,
    without_cudnn,
)

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
    with attention_for_training(
        transformer, torch.device("cpu"), num_tokens=9, num_images=1, checkpointing=False
    ) as name:
        assert name == ""


@pytest.mark.parametrize("name", KERNELS)
def test_the_kernels_are_diffusers_own_names(name):
    from diffusers.models.attention_dispatch import AttentionBackendName

    assert AttentionBackendName(name).value == name
    assert set(KEEPABLE) <= set(KERNELS)


def test_on_cuda_cudnn_is_neither_measured_nor_left_to_torch(transformer, monkeypatch):
    enabled = torch.backends.cuda.cudnn_sdp_enabled
    seen = {}

    def measured(kernels, *_, **__):
        seen.update(kernels=kernels, while_measuring=enabled())
        return {"native": 1.0}

    monkeypatch.setattr(attention, "measured_kernels", measured)
    assert enabled()
    with attention_for_training(
        transformer, torch.device("cuda"), num_tokens=9, num_images=1, checkpointing=False
    ) as name:
        assert name == "native"
        assert not enabled()
    assert enabled()
    assert not seen["while_measuring"]
    assert not [kernel for kernel in seen["kernels"] if "cudnn" in kernel]


@pytest.mark.parametrize("before", [True, False])
def test_cudnn_is_as_it_was_after_a_failure(before):
    torch.backends.cuda.enable_cudnn_sdp(before)
    try:
        seen = []
        with pytest.raises(ZeroDivisionError), without_cudnn():
            seen.append(torch.backends.cuda.cudnn_sdp_enabled()) or 1 / 0
        assert seen == [False]
        assert torch.backends.cuda.cudnn_sdp_enabled() is before
    finally:
        torch.backends.cuda.enable_cudnn_sdp(True)

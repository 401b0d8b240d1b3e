"""Which attention kernel a run uses: on CUDA the fastest, by measurement when it starts.

No table knows every GPU, size and version, and the differences are large: at 4096 px attention is four fifths
of a step. Measured are the kernels behind torch's own function, and the flash-attn packages where they are
installed; anything that does not run here is left out. On a CPU nothing is measured or changed.

cuDNN's attention takes no part: its backward pass in the stock FLUX model at 1024 px ended with an illegal memory
access (torch 2.11, CUDA 13.0, cuDNN 9.19, H200, 2026-11-27; not in a call by itself at the same length). After that
a process cannot go on, so that trying it is no way to find out. torch chooses it by itself on such GPUs, hence
`without_cudnn`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from diffusers.models.attention_dispatch import attention_backend, dispatch_attention_fn

from urae.execution.choices import Checkpointing
from urae.execution.processes import on_main
from urae.families import family_of
from urae.resolution import Size, num_tokens

__all__ = [
    "attention_for_drawing",
    "attention_for_training",
    "kernels_for",
    "measured_kernels",
    "without_cudnn",
]

KERNELS = ("native", "_native_flash", "flash", "_flash_3")
"""Names of diffusers' attention backends."""

KEEPABLE = ("native", "_native_flash")
"""Those whose results "attention" checkpointing can keep (`urae.execution.checkpointing.ATTENTION`)."""

MASKABLE = ("native",)
"""Those that take a mask."""


@contextmanager
def attention_for_training(
    transformer: Any,
    device: torch.device,
    *,
    num_tokens: int,
    num_images: int,
    checkpointing: Checkpointing,
) -> Iterator[str]:
    """Run attention by the fastest kernel for this many tokens and images; yields its name, which is "" on a CPU,
    where nothing is changed."""
    if device.type != "cuda":
        yield ""
        return
    shape = _shape(transformer, num_images, num_tokens)
    kernels = kernels_for(transformer, checkpointing)
    with without_cudnn():
        # All processes of a run compute alike.
        name = on_main(lambda: _fastest(kernels, shape, device=device, dtype=torch.bfloat16))
        with attention_backend(name):
            yield name


def kernels_for(transformer: Any, checkpointing: Checkpointing = False) -> tuple[str, ...]:
    """The kernels that may be chosen for a transformer."""
    if family_of(transformer).layers.mask != "none":
        return MASKABLE
    return KEEPABLE if checkpointing == "attention" else KERNELS


@contextmanager
def attention_for_drawing(pipe: Any, size: Size) -> Iterator[str]:
    """Attention by the fastest kernel for a picture of `size`; yields its name, "" where nothing is changed: on a CPU,
    and where the transformer's owner has chosen one."""
    device, transformer = pipe._execution_device, pipe.transformer
    if device.type != "cuda" or _has_own_attention(transformer):
        yield ""
        return
    shape = _shape(transformer, 1, num_tokens(pipe, size))
    kernels = kernels_for(transformer)
    name = _fastest(kernels, shape, device=device, dtype=transformer.dtype, backward=False)
    with attention_backend(name):
        yield name


@contextmanager
def without_cudnn() -> Iterator[None]:
    """Within, torch's own function chooses among its other kernels; on exit it is as it was."""
    before = torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cuda.enable_cudnn_sdp(False)
    try:
        yield
    finally:
        torch.backends.cuda.enable_cudnn_sdp(before)


def measured_kernels(
    kernels: Sequence[str],
    shape: Sequence[int],
    *,
    device: torch.device,
    dtype: torch.dtype,
    repeats: int = 2,
    backward: bool = True,
) -> dict[str, float]:
    """Seconds of one attention forward, and backward if asked, by each kernel that runs here.

    shape: (images, tokens, heads, values of a head).
    """
    inputs = [torch.randn(*shape, device=device, dtype=dtype, requires_grad=backward) for _ in range(3)]
    seconds = {}
    for kernel in kernels:
        try:
            with attention_backend(kernel):
                _attend(inputs)  # the first call loads and chooses
                seconds[kernel] = min(_timed(inputs, device) for _ in range(repeats))
        except RuntimeError:  # not installed, or not for this GPU, type or head
            continue
    return seconds


def _shape(transformer: Any, num_images: int, num_tokens: int) -> tuple[int, int, int, int]:
    heads, channels = family_of(transformer).layers.heads(transformer)
    return num_images, num_tokens, heads, channels


def _fastest(kernels: Sequence[str], shape: Sequence[int], **settings: Any) -> str:
    seconds = measured_kernels(kernels, shape, **settings)
    return min(seconds, key=lambda kernel: seconds[kernel])


def _has_own_attention(transformer: Any) -> bool:
    if getattr(transformer, "_parallel_config", None) is not None:
        return True
    processors = (getattr(module, "processor", None) for module in transformer.modules())
    return any(getattr(processor, "_attention_backend", None) is not None for processor in processors)


def _timed(inputs: Sequence[torch.Tensor], device: torch.device) -> float:
    _wait(device)
    started = time.perf_counter()
    _attend(inputs)
    _wait(device)
    return time.perf_counter() - started


def _attend(inputs: Sequence[torch.Tensor]) -> None:
    query, key, value = inputs
    with torch.set_grad_enabled(query.requires_grad):
        output = dispatch_attention_fn(query, key, value)
    if output.requires_grad:
        torch.autograd.grad(output.sum(), inputs)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)

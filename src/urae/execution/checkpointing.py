"""How a transformer keeps activations, for the duration of a block.

What a backward pass needs can be kept or computed again. Between the two extremes lies the setting for large
images: at 4096 px attention is four fifths of a block's work, and its output one of some twenty tensors that
a block keeps. So "attention" recomputes everything else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

from urae.execution.activations import HostCheckpointing
from urae.execution.choices import Checkpointing

__all__ = ["ATTENTION", "gradient_checkpointing"]

ATTENTION = [
    getattr(torch.ops.aten, f"_scaled_dot_product_{kind}").default
    for kind in ("flash_attention", "efficient_attention", "cudnn_attention", "flash_attention_for_cpu")
]
"""The operations whose results "attention" keeps: every fused kernel behind scaled_dot_product_attention."""


@contextmanager
def gradient_checkpointing(
    transformer: Any,
    mode: Checkpointing,
    *,
    compiled: bool = False,
    offload: HostCheckpointing | None = None,
) -> Iterator[None]:
    """Recompute activations in the backward pass: all inside a block (True or "full"), all but the results of
    attention ("attention"), or none (False). `compiled` says that blocks are, and so must be what surrounds
    them. `offload` takes what is kept to the host."""
    before, function = transformer.is_gradient_checkpointing, transformer._gradient_checkpointing_func
    _set_checkpointing(transformer, bool(mode), _run(mode, compiled, offload))
    try:
        yield
    finally:
        _set_checkpointing(transformer, before, function)


def _run(mode: Checkpointing, compiled: bool, offload: HostCheckpointing | None) -> Callable[..., Any] | None:
    """How a block is run; None is diffusers' own way."""
    keep = ATTENTION if mode == "attention" else []
    if offload is not None:
        return partial(offload.checkpoint, keep=keep)
    run = _keep_attention if keep else None
    return torch.compile(run) if run and compiled else run


def _set_checkpointing(transformer: Any, enabled: bool, run: Callable[..., Any] | None) -> None:
    if enabled:
        transformer.enable_gradient_checkpointing(run)
    else:
        transformer.disable_gradient_checkpointing()


def _keep_attention(block: Any, *inputs: Any) -> Any:
    contexts = partial(create_selective_checkpoint_contexts, ATTENTION)
    return checkpoint(block, *inputs, use_reentrant=False, context_fn=contexts)

"""What a model is, as a hash of its weights: names, types, shapes and bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import torch
from torch import nn

__all__ = ["fingerprint"]


def fingerprint(modules: Iterable[nn.Module], *, also: str = "") -> str:
    """SHA-256 of the weights of some modules, wherever they lie, and of a text that belongs with them."""
    digest = hashlib.sha256(also.encode())
    for module in modules:
        for name, tensor in sorted(module.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()

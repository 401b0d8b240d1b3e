"""This process among those that `torchrun` or `accelerate launch` has started."""

from __future__ import annotations

import os

import torch
from accelerate import PartialState

__all__ = ["this_process"]


def this_process() -> PartialState:
    """accelerate's account of it. Without an accelerator processes talk by gloo, for which accelerate wants to be
    asked; otherwise each would take itself for the only one."""
    alone = "LOCAL_RANK" not in os.environ
    return PartialState(cpu=not (alone or torch.accelerator.is_available()))

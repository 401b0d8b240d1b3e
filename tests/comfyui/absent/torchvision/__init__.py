"""Stands for torchvision where there is none, so that ComfyUI can be imported: the models here use nothing of it."""

from . import ops, transforms  # noqa: F401

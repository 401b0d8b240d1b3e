"""ComfyUI nodes for ultra-resolution adapters: resolution policy, adapters that carry one, and guided second passes.

Copy this folder into ComfyUI's `custom_nodes`. It needs nothing but ComfyUI.
"""

from __future__ import annotations

from typing import Any

__all__ = ["comfy_entrypoint"]


async def comfy_entrypoint() -> Any:
    """The extension. ComfyUI is imported here, so that the mathematics can be tested without it."""
    from .nodes import UraeExtension

    return UraeExtension()

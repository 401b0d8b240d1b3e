"""What other tools read of an adapter for FLUX.1, by the layout of its file.

Tools say little or nothing about what they leave out. The rules were read off their loaders; the tests hold them to
what the loaders of diffusers, ComfyUI, InvokeAI and OneTrainer did with our files, and to the names in the source of
sd-scripts, ai-toolkit and SimpleTuner.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence

from urae.adapters.convert import Layout
from urae.resolution.policy import ResolutionPolicy

__all__ = ["LOADERS", "nearest_nodes", "unread"]

EMBEDDERS = ("x_embedder", "context_embedder", "time_text_embed.")
RECOGNISED = {
    "transformer_blocks.0.attn.add_q_proj",
    "single_transformer_blocks.0.attn.to_q",
}
"""The layers by which InvokeAI knows a file of diffusers' names for one of FLUX.1."""
MODULATIONS = ("norm.linear", "norm1.linear", "norm1_context.linear")


def unread(tool: str, names: Collection[str], layout: Layout) -> list[str]:
    """The layers of FLUX.1, by their names in diffusers, that a tool of `LOADERS` leaves out of a file in the layout.

    names: what the adapter changes, layers, or parameters (ending in .weight or .bias) for a full one.
    """
    parameters = [name for name in names if name.endswith((".weight", ".bias"))]
    return LOADERS[tool](list(names), layout, bool(parameters))


def nearest_nodes(policy: ResolutionPolicy) -> str:
    """The settings of ComfyUI's own nodes that come nearest to a policy, in words."""
    mu = math.log(policy.shift)
    found = f"ModelSamplingFlux with max_shift and base_shift {mu:.4g}"
    return (
        found
        if policy.scale == 1
        else f"{found} and ScaleROPE with scale_x and scale_y {1 / policy.scale:.4g}"
    )


def _diffusers(names: Sequence[str], layout: Layout, full: bool) -> list[str]:
    if full or layout == "comfy":
        return list(names)
    return [] if layout == "diffusers" else [name for name in names if not _in_block(name)]


def _comfyui(names: Sequence[str], layout: Layout, full: bool) -> list[str]:
    return list(names) if full and layout != "comfy" else []


def _invokeai(names: Sequence[str], layout: Layout, full: bool) -> list[str]:
    if full or not any(map(_in_block, names)):
        return list(names)
    if layout == "comfy":
        return []
    if layout == "kohya":  # one name that it does not know, and it knows nothing of the file
        strange = [name for name in names if not _in_block(name) and name != "proj_out"]
        return list(names) if strange else [name for name in names if name == "proj_out"]
    known = set(names) >= RECOGNISED and "norm_out.linear" not in names
    return [name for name in names if "guidance_embedder" in name] if known else list(names)


def _sd_scripts(names: Sequence[str], layout: Layout, full: bool) -> list[str]:
    if full or layout != "kohya":
        return list(names)
    return [name for name in names if not _in_block(name) and not name.startswith(EMBEDDERS)]


def _ai_toolkit(names: Sequence[str], layout: Layout, full: bool) -> list[str]:
    if full or layout != "diffusers":
        return list(names)
    return [name for name in names if not _in_block(name)]


def _onetrainer(names: Sequence[str], layout: Layout, full: bool) -> list[str]:
    return list(names) if full else []


def _simpletuner(names: Sequence[str], layout: Layout, full: bool) -> list[str]:
    """By the better of its two widest lists of targets: one has modulations, the other the image's embedder."""
    if full or layout != "diffusers":
        return list(names)
    with_modulations = [name for name in names if not _in_block(name) and name != "proj_out"]
    with_embedder = [
        name
        for name in names
        if name.endswith(MODULATIONS) or not (_in_block(name) or name in ("x_embedder", "proj_out"))
    ]
    return min(with_modulations, with_embedder, key=len)


def _in_block(name: str) -> bool:
    return "transformer_blocks." in name


LOADERS: dict[str, Callable[[Sequence[str], Layout, bool], list[str]]] = {
    "diffusers": _diffusers,
    "ComfyUI": _comfyui,
    "InvokeAI": _invokeai,
    "kohya's sd-scripts": _sd_scripts,
    "ai-toolkit": _ai_toolkit,
    "OneTrainer": _onetrainer,
    "SimpleTuner": _simpletuner,
}
"""Tool -> what it leaves out. Versions: diffusers 0.42, ComfyUI 0.3.64 and 0.29, InvokeAI 8e71a8a, sd-scripts 48d368f,
ai-toolkit 27a03a9, OneTrainer 23df383, SimpleTuner bc8e6ab."""

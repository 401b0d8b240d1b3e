"""Where a pipeline's parts lie while it makes an image, and whether its VAE decodes in tiles.

A `MemoryPlan` is chosen from what is free and what the size will need, and says why. Offloading costs time;
tiling costs a little of the picture, where tiles meet. So parts are offloaded before the VAE is tiled.

The needs are counted, not measured: live bytes of a FLUX.1 forward pass and VAE decode on fake tensors in
bf16 are 17.2 values of the transformer's width per token and 768 values per pixel of the decoded tile.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import nn

from urae.resolution import Size, native_size, num_image_tokens, text_tokens

__all__ = [
    "MemoryNeed",
    "MemoryPlan",
    "Offload",
    "choose_plan",
    "choose_tiling",
    "memory_need",
    "plan_memory",
]

Offload = Literal["unchanged", "none", "model", "sequential"]
"""Leave the parts where their owner put them; all on the device; one part at a time; one layer at a time."""

_IN_WORDS = {
    "unchanged": "as it is",
    "none": "whole pipeline",
    "model": "one part at a time",
    "sequential": "one layer at a time",
}
WIDTHS_PER_TOKEN = 20
"""Live values per token in a transformer block, in units of its width: 17.2 counted, rounded up."""
USABLE = 0.85
"""Share of the free memory that is planned with; the rest is for workspaces and fragments."""


@dataclass(frozen=True, kw_only=True)
class MemoryPlan:
    """A decision about memory, and the reason for it in words."""

    device: str
    """Where the computation runs: "cpu", "cuda", "cuda:1", ..."""
    offload: Offload
    """How much of the pipeline is on the device at a time."""
    tile_vae: bool = False
    """Decode in overlapping tiles of the VAE's native size."""
    reason: str = "as asked"

    def __post_init__(self) -> None:
        if self.offload not in get_args(Offload):
            raise ValueError(f"offload is {self.offload!r}: expected one of {', '.join(get_args(Offload))}")

    def __str__(self) -> str:
        tiles = ", VAE in tiles" if self.tile_vae else ""
        return f"{_IN_WORDS[self.offload]} on {self.device}{tiles}: {self.reason}"

    @contextmanager
    def on(self, pipe: Any) -> Iterator[None]:
        """Apply to a stock pipeline; its device, hooks and tiling are as before on exit.

        Around several calls of `generate` it saves moving the parts to the device and back for each.
        """
        with ExitStack() as undo:
            if self.offload != "unchanged":
                _check_not_offloaded(pipe, self.offload)
                undo.callback(pipe.to, pipe.device)
            if self.offload == "none":
                pipe.to(self.device)
            elif self.offload != "unchanged":
                undo.callback(pipe.remove_all_hooks)
                getattr(pipe, f"enable_{self.offload}_cpu_offload")(device=self.device)
            if self.tile_vae:
                undo.callback(setattr, pipe.vae, "use_tiling", pipe.vae.use_tiling)
                pipe.vae.enable_tiling()
            yield


@dataclass(frozen=True, kw_only=True)
class MemoryNeed:
    """Estimated bytes on the device for one image."""

    weights: int
    """All parts together."""
    largest_part: int
    """Weights of the largest part, as a rule the transformer."""
    denoise: int
    """Activations of one transformer call."""
    decode: int
    """Activations of the VAE's decoder on the whole image."""
    decode_tiled: int
    """The same, tile by tile."""

    def of(self, offload: Offload, tile_vae: bool) -> int:
        """Peak under a way of running."""
        weights = {"none": self.weights, "model": self.largest_part, "sequential": 0}[offload]
        return weights + max(self.denoise, self.decode_tiled if tile_vae else self.decode)


def plan_memory(pipe: Any, size: Size) -> MemoryPlan:
    """Choose how to run `pipe` at `size` on this machine.

    Without CUDA everything stays as it is. A pipeline that was put on a device or offloaded by its owner stays
    there too, and only tiling is chosen.
    """
    if not torch.cuda.is_available():
        return MemoryPlan(device=pipe.device.type, offload="unchanged", reason="no CUDA device here")
    free, _ = torch.cuda.mem_get_info()
    need, can_tile = memory_need(pipe, size), _can_tile(pipe, size)
    if pipe.device.type == "cpu" and not _is_offloaded(pipe):
        return choose_plan(need, free=free, can_tile=can_tile)
    return choose_tiling(need, free=free, can_tile=can_tile, is_offloaded=_is_offloaded(pipe))


def choose_plan(need: MemoryNeed, *, free: int, can_tile: bool) -> MemoryPlan:
    """The first way of running that fits into `free` bytes of a CUDA device, from the exact and fast downwards.

    If nothing fits, the last one, which needs the least; its reason says so.
    """
    tiles = (False, True) if can_tile else (False,)
    ways: list[tuple[Offload, bool]] = [(offload, tile) for tile in tiles for offload in ("none", "model")]
    ways.append(("sequential", can_tile))
    fitting = [way for way in ways if need.of(*way) <= USABLE * free]
    offload, tile_vae = fitting[0] if fitting else ways[-1]
    reason = _compare(need.of(offload, tile_vae), free)
    return MemoryPlan(device="cuda", offload=offload, tile_vae=tile_vae, reason=reason)


def choose_tiling(need: MemoryNeed, *, free: int, can_tile: bool, is_offloaded: bool) -> MemoryPlan:
    """For a pipeline that its owner has placed: decode in tiles if the whole image would not fit."""
    # Weights that lie on the device are no longer part of what is free; offloaded ones still have to come.
    still_to_come = need.largest_part if is_offloaded else 0
    whole, tiled = (still_to_come + max(need.denoise, decode) for decode in (need.decode, need.decode_tiled))
    tile_vae = can_tile and whole > USABLE * free
    reason = _compare(tiled if tile_vae else whole, free)
    return MemoryPlan(device="cuda", offload="unchanged", tile_vae=tile_vae, reason=reason)


def memory_need(pipe: Any, size: Size) -> MemoryNeed:
    """Estimate from the parts' weights, the token count and the pixels; batch 1."""
    parts = [_weight_bytes(part) for part in pipe.components.values() if isinstance(part, nn.Module)]
    tokens = num_image_tokens(size) + text_tokens(pipe)
    width = pipe.transformer.config.num_attention_heads * pipe.transformer.config.attention_head_dim
    pixels, tile = size[0] * size[1], native_size(pipe) ** 2
    picture = 2 * 3 * pixels * pipe.vae.dtype.itemsize
    return MemoryNeed(
        weights=sum(parts),
        largest_part=max(parts),
        denoise=WIDTHS_PER_TOKEN * width * tokens * pipe.transformer.dtype.itemsize,
        decode=_decode_bytes(pipe.vae) * pixels + picture,
        decode_tiled=_decode_bytes(pipe.vae) * min(tile, pixels) + picture,
    )


def _is_offloaded(pipe: Any) -> bool:
    return any(hasattr(part, "_hf_hook") for part in pipe.components.values())


def _check_not_offloaded(pipe: Any, offload: Offload) -> None:
    if _is_offloaded(pipe):
        raise ValueError(
            f"offload is {offload!r}, but the pipeline has been offloaded already: "
            "use unchanged, or call its remove_all_hooks() first"
        )


def _decode_bytes(vae: Any) -> int:
    # At full resolution the last up block holds three maps of the channels of the block below it.
    return 3 * vae.config.block_out_channels[:2][-1] * vae.dtype.itemsize


def _weight_bytes(part: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in (*part.parameters(), *part.buffers()))


def _can_tile(pipe: Any, size: Size) -> bool:
    # diffusers decodes in tiles only what is larger than one tile, of the native size.
    return max(size) > native_size(pipe)


def _compare(needed: int, free: int) -> str:
    relation = "of" if needed <= USABLE * free else "but there are only"
    return f"needs about {needed / 1e9:.1f} GB {relation} {free / 1e9:.1f} GB free"

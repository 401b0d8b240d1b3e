"""Where a pipeline's parts lie while it makes an image, and how its VAE decodes.

A `MemoryPlan` is chosen from what is free and what the size will need, and says why. The VAE decodes the whole
picture; or strips of it, which is the same function and costs little time (`urae.execution.strips`); or
diffusers' tiles, which change the picture where they meet. Offloading costs time too, more than strips do. So
strips come first, then offloading, and tiles where nothing else fits.

What a size needs is counted in `urae.execution.budget`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any, get_args

import torch
from torch import nn

from urae.execution.budget import call_bytes, decoding_bytes, fits, free_bytes
from urae.execution.choices import BY_ERROR, Offload, VaeWay
from urae.execution.modules import is_offloaded, is_offloaded_by_layer, weight_bytes
from urae.execution.rounding import check_can_multiply, quantised_bytes, stored_as
from urae.execution.strips import has_strips, vae_run
from urae.families.vaes import vae_maps
from urae.resolution import Size, num_tokens

__all__ = ["MemoryNeed", "MemoryPlan", "choose_decode", "choose_plan", "memory_need", "plan_memory"]

_IN_WORDS = {
    "unchanged": "as it is",
    "none": "whole pipeline",
    "model": "one part at a time",
    "sequential": "one layer at a time",
}
_DECODE_IN_WORDS = {"whole": "", "strips": ", VAE in strips", "tiles": ", VAE in tiles"}


@dataclass(frozen=True, kw_only=True)
class MemoryPlan:
    """A decision about memory, and the reason for it in words."""

    device: str
    """Where the computation runs: "cpu", "cuda", "cuda:1", ..."""
    offload: Offload
    """How much of the pipeline is on the device at a time."""
    decode: VaeWay = "whole"
    """Of the VAE: "strips" of the whole, or diffusers' overlapping "tiles" of its native size."""
    reason: str = "as asked"

    def __post_init__(self) -> None:
        for name, given, choices in (("offload", self.offload, Offload), ("decode", self.decode, VaeWay)):
            if given not in get_args(choices):
                raise ValueError(f"{name} is {given!r}: expected one of {', '.join(get_args(choices))}")
        if self.decode == "strips" and self.offload == "sequential":
            raise ValueError(
                "decode is 'strips' with offload 'sequential', which takes the VAE's layers away one by one: "
                "use tiles or whole, or offload 'model'"
            )

    def __str__(self) -> str:
        decode = _DECODE_IN_WORDS[self.decode]
        return f"{_IN_WORDS[self.offload]} on {self.device}{decode}: {self.reason}"

    @contextmanager
    def on(self, pipe: Any) -> Iterator[None]:
        """Apply to a stock pipeline; its device, hooks and way of decoding are as before on exit.

        Around several calls of `generate` it saves moving the parts to the device and back for each.
        """
        with ExitStack() as undo:
            if self.offload != "unchanged":
                _check_not_offloaded(pipe, self.offload)
                # Quantised on the host, it may go to a GPU that is too old for it.
                check_can_multiply(stored_as(pipe), torch.device(self.device))
                undo.callback(pipe.to, pipe.device)
            if self.offload == "none":
                pipe.to(self.device)
            elif self.offload != "unchanged":
                undo.callback(pipe.remove_all_hooks)
                getattr(pipe, f"enable_{self.offload}_cpu_offload")(device=self.device)
            if self.decode == "strips":
                _check_strips(pipe.vae)
            undo.enter_context(vae_run(pipe.vae, self.decode))
            yield


@dataclass(frozen=True, kw_only=True)
class MemoryNeed:
    """Estimated bytes on the device for one image."""

    weights: int
    """All parts together."""
    largest_part: int
    """Weights of the largest part, as a rule the transformer."""
    vae: int
    """Weights of the VAE, which is alone on the device at the end where one part is at a time."""
    denoise: int
    """Activations of one transformer call."""
    decode: Mapping[VaeWay, int]
    """Activations of the VAE's decoder, in each way that it can run at this size, the fastest first."""

    def of(self, offload: Offload, decode: VaeWay) -> int:
        """Peak under a way of running."""
        weights = {"none": self.weights, "model": self.largest_part, "sequential": 0}[offload]
        return max(weights + self.denoise, self.decoding(offload, decode))

    def decoding(self, offload: Offload, decode: VaeWay) -> int:
        """Peak while the VAE decodes."""
        weights = {"none": self.weights, "model": self.vae, "sequential": 0}[offload]
        return weights + self.decode[decode]


def plan_memory(pipe: Any, size: Size) -> MemoryPlan:
    """Choose how to run `pipe` at `size` on this machine.

    Without CUDA everything stays as it is. A pipeline that was put on a device or offloaded by its owner stays
    there too, and only the way of decoding is chosen.
    """
    if not torch.cuda.is_available():
        return MemoryPlan(device=pipe.device.type, offload="unchanged", reason="no CUDA device here")
    free = free_bytes(torch.device("cuda"))
    need = memory_need(pipe, size)
    if pipe.device.type == "cpu" and not is_offloaded(pipe):
        plan = choose_plan(need, free=free)
        return replace(plan, reason=plan.reason + in_fewer_bits(pipe, need, plan, free=free))
    return choose_decode(need, free=free, is_offloaded=is_offloaded(pipe))


def choose_plan(need: MemoryNeed, *, free: int) -> MemoryPlan:
    """The first way of running that fits into `free` bytes of a CUDA device, from the exact and fast downwards.

    If nothing fits, the last one, which needs the least; its reason says so.
    """
    ways: list[tuple[Offload, VaeWay]] = [
        (offload, decode)
        for group in (("whole", "strips"), ("tiles",))
        for offload in ("none", "model")
        for decode in need.decode
        if decode in group
    ]
    ways += [("sequential", decode) for decode in need.decode if decode != "strips"]
    fitting = [way for way in ways if fits(need.of(*way), free)]
    offload, decode = fitting[0] if fitting else ways[-1]
    reason = _compare(need.of(offload, decode), free)
    return MemoryPlan(device="cuda", offload=offload, decode=decode, reason=reason)


def in_fewer_bits(pipe: Any, need: MemoryNeed, plan: MemoryPlan, *, free: int) -> str:
    """What to say where the weights are the obstacle: the first format of `quantised` in which they would be none."""
    if plan.offload != "sequential" or stored_as(pipe) != "as_loaded":
        return ""
    parts = [weight_bytes(part) for part in _parts(pipe) if part is not pipe.transformer]
    for kind in BY_ERROR:
        stored = quantised_bytes(pipe.transformer, kind)
        smaller = replace(need, weights=sum(parts) + stored, largest_part=max(*parts, stored))
        better = choose_plan(smaller, free=free)
        if better.offload != "sequential":
            return f"; with base_weights {kind} it would be {_IN_WORDS[better.offload]}, which is much faster"
    return ""


def choose_decode(need: MemoryNeed, *, free: int, is_offloaded: bool) -> MemoryPlan:
    """For a pipeline that its owner has placed: how to decode, the whole where it fits."""
    # Weights that lie on the device are no longer part of what is free; offloaded ones still have to come.
    like: Offload = "model" if is_offloaded else "sequential"
    fitting = [decode for decode in need.decode if fits(need.decoding(like, decode), free)]
    decode = fitting[0] if fitting else list(need.decode)[-1]
    reason = _compare(need.of(like, decode), free)
    return MemoryPlan(device="cuda", offload="unchanged", decode=decode, reason=reason)


def memory_need(pipe: Any, size: Size) -> MemoryNeed:
    """Estimate from the parts' weights, the token count and the pixels; batch 1."""
    parts = [weight_bytes(part) for part in _parts(pipe)]
    tokens = num_tokens(pipe, size)
    return MemoryNeed(
        weights=sum(parts),
        largest_part=max(parts),
        vae=weight_bytes(pipe.vae),
        denoise=call_bytes(pipe.transformer, tokens),
        decode={way: decoding_bytes(pipe.vae, size, way) for way in _ways_to_decode(pipe, size)},
    )


def _check_not_offloaded(pipe: Any, offload: Offload) -> None:
    if is_offloaded(pipe):
        raise ValueError(
            f"offload is {offload!r}, but the pipeline has been offloaded already: "
            "use unchanged, or call its remove_all_hooks() first"
        )


def _parts(pipe: Any) -> list[nn.Module]:
    return [part for part in pipe.components.values() if isinstance(part, nn.Module)]


def _ways_to_decode(pipe: Any, size: Size) -> list[VaeWay]:
    ways: list[VaeWay] = ["whole"]
    if has_strips(pipe.vae) and not is_offloaded_by_layer(pipe.vae):
        ways.append("strips")
    # diffusers decodes in tiles only what is larger than one tile.
    if max(size) > vae_maps(pipe.vae).tile:
        ways.append("tiles")
    return ways


def _check_strips(vae: Any) -> None:
    if not has_strips(vae):
        raise ValueError(
            f"decode is 'strips', which knows the layers of AutoencoderKL, not of {type(vae).__name__}: use tiles"
        )
    if is_offloaded_by_layer(vae):
        raise ValueError(
            "decode is 'strips', but the VAE's layers are offloaded one by one: use tiles, or offload whole parts"
        )


def _compare(needed: int, free: int) -> str:
    relation = "of" if fits(needed, free) else "but there are only"
    return f"needs about {needed / 1e9:.1f} GB {relation} {free / 1e9:.1f} GB free"

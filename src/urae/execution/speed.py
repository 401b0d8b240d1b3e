"""How fast a picture is made: which work is left out, and by which kernels the rest is done.

"exact" leaves nothing out: what changes is rounding, and on a CPU not even that. On CUDA attention runs by the kernel
that is fastest here, by measurement, and the transformer's blocks are compiled where that pays: compiling takes half
a minute, which a single small picture never gives back. "fast" adds a cache (`urae.execution.caches`). The decision
is a `SpeedPlan`, which says its reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from diffusers.models.attention_dispatch import attention_backend

from urae.execution.attention import kernels_for, measured_kernels
from urae.execution.caches import (
    CACHES,
    Cache,
    FirstBlock,
    TaylorSeer,
    attributes_kept,
    cache_named,
    cache_text,
    cached,
    check_free,
    is_compiled,
)
from urae.execution.memory import MemoryPlan
from urae.families import family_of
from urae.resolution import Size, num_tokens

__all__ = ["Compile", "Speed", "SpeedPlan", "cache_of", "compiled_blocks", "plan_speed", "speed_text"]

Speed = str | Cache
"""exact, fast, or a cache: an object such as `TaylorSeer(interval=3)`, or its text "taylorseer:interval=3"."""

Compile = bool | Literal["auto"]

COMPILE_SECONDS = 30.0
"""What compiling both kinds of block takes; PyTorch's guide to diffusers has 9.6 s for FLUX.1 without an adapter."""
SAVED_SECONDS = 17e-6
"""What a compiled FLUX.1 saves per token and call: 6.7 s became 4.5 s in 28 calls of 4608 tokens on an H100 (ibid.)."""
MAX_VARIANTS = 64
"""Of a compiled block: each adapter, and each of the first sizes and numbers of windows, makes another."""
FLUX_WIDTHS = 57 * 3072
"""FLUX.1's blocks times their width, which that saving is proportional to."""


@dataclass(frozen=True, kw_only=True)
class SpeedPlan:
    """A decision about speed, and the reason for compiling or not in words."""

    cache: Cache | None
    """None is exact."""
    steps: int
    """Denoising steps of the pass that it is for."""
    compile: bool
    """Whether the transformer's blocks are compiled."""
    reason: str

    def __str__(self) -> str:
        return f"{self._caching()}, blocks {'compiled' if self.compile else 'eager'}: {self.reason}"

    @property
    def text(self) -> str:
        """What decides the pixels, as `speed` of `generate` takes it."""
        return speed_text(self.cache)

    @contextmanager
    def on(self, pipe: Any, size: Size) -> Iterator[dict[str, str]]:
        """Run the transformer by the chosen kernels at `size`; yields what a picture's `info` says about them."""
        with _fastest_attention(pipe, size) as kernel, compiled_blocks(pipe.transformer, self.compile):
            words = [f"attention by {kernel}"] * bool(kernel) + ["blocks compiled"] * self.compile
            if getattr(pipe.transformer, "is_cache_enabled", False):
                # Its owner's, which "exact" leaves alone: the picture has to say so.
                words.append(f"blocks left out by a {type(pipe.transformer._cache_config).__name__}")
            yield {"kernels": ", ".join(words)} if words else {}

    def drawing(self, pipe: Any, on_step: Callable[[], None]) -> Any:
        """A context for drawing one picture, which yields what to call after each of its steps."""
        return cached(pipe.transformer, self.cache, on_step) if self.cache else nullcontext(on_step)

    def _caching(self) -> str:
        if not self.cache:
            return "exact"
        num = self.cache.num_computed(self.steps)
        computed = "as many as the picture needs" if num is None else str(num)
        return f"{self.text} ({computed} of {self.steps} steps computed)"


def plan_speed(
    pipe: Any,
    size: Size,
    speed: Speed = "exact",
    *,
    steps: int,
    num_images: int = 1,
    compile: Compile = "auto",
    context_parallel: int = 1,
    memory: MemoryPlan,
) -> SpeedPlan:
    """Choose how to run `pipe` at `size` for `num_images` pictures of `steps` denoising steps each, of which
    `context_parallel` processes draw each together.

    ValueError for a speed or `compile` that would have no effect, or cannot be had.
    """
    cache = cache_of(speed)
    if cache:
        check_free(pipe.transformer, cache)
    if context_parallel > 1 and isinstance(cache, FirstBlock):
        raise ValueError(
            f"speed {cache_text(cache)} decides by the tokens that a process sees, and {context_parallel} processes "
            "that share a picture would decide differently: take taylorseer"
        )
    if cache and steps <= cache.warm_up:
        raise ValueError(
            f"speed {cache_text(cache)} has no effect in {steps} steps, of which it computes the first "
            f"{cache.warm_up} in full: take more steps, or speed exact"
        )
    calls = num_images * ((cache.num_computed(steps) if cache else None) or steps)
    obstacle = "processes share a picture" if context_parallel > 1 else _obstacle(pipe, memory)
    compiles, reason = _compiling(pipe, size, calls, compile, memory, obstacle)
    return SpeedPlan(cache=cache, steps=steps, compile=compiles, reason=reason)


def speed_text(cache: Cache | None) -> str:
    """What decides the pixels, in the words that `cache_of` reads: "exact", or the cache and its settings."""
    return cache_text(cache) if cache else "exact"


def cache_of(speed: Speed) -> Cache | None:
    """The cache that a speed stands for; None for "exact"."""
    if isinstance(speed, tuple(CACHES.values())):
        return speed  # type: ignore[return-value]
    if not isinstance(speed, str):
        raise ValueError(f"speed is {speed!r}: expected exact, fast or a cache, {' or '.join(CACHES)}")
    if speed in ("exact", "fast"):
        return None if speed == "exact" else TaylorSeer()
    return cache_named(speed)


@contextmanager
def compiled_blocks(transformer: Any, enabled: bool) -> Iterator[None]:
    """Compile what one block of each kind computes, which all of the kind then share; undone on exit.

    Compiled is a block's `forward`, not its call: hooks of a cache that come later stay outside, in plain Python.
    """
    if not enabled:
        yield
        return
    # After eight variants torch's default is to run eagerly what is said to be compiled.
    with attributes_kept(transformer), torch._dynamo.config.patch(recompile_limit=MAX_VARIANTS):
        for block in _blocks(transformer):
            block.forward = torch.compile(block.forward)
        yield


def _compiling(
    pipe: Any, size: Size, calls: int, compile: Compile, memory: MemoryPlan, obstacle: str
) -> tuple[bool, str]:
    """Whether to compile for this many transformer calls, and why. `obstacle`: why it cannot be done, if it cannot."""
    if obstacle:
        if compile is True:
            raise ValueError(f"compile is True where {obstacle}, which does not go together: leave it out")
        return False, obstacle
    if compile != "auto":
        return compile, "as asked"
    if not memory.device.startswith("cuda"):
        return False, "compiling pays on CUDA only"
    tokens = num_tokens(pipe, size)
    saved = SAVED_SECONDS * calls * tokens * _widths(pipe.transformer) / FLUX_WIDTHS
    reason = f"{calls} calls would save about {saved:.0f} s, compiling takes about {COMPILE_SECONDS:.0f} s"
    return saved > COMPILE_SECONDS, reason


def _obstacle(pipe: Any, memory: MemoryPlan) -> str:
    """Why blocks cannot be compiled; empty if they can."""
    if memory.offload == "sequential" or _is_offloaded_by_layer(pipe.transformer):
        return "weights come one layer at a time"
    if is_compiled(pipe.transformer):
        return "the transformer is compiled already"
    if any(
        getattr(block, "_diffusers_hook", None) and block._diffusers_hook.hooks
        for block in _blocks(pipe.transformer)
    ):
        return "the transformer's blocks have hooks already"
    return ""


def _is_offloaded_by_layer(transformer: Any) -> bool:
    return any(hasattr(module, "_hf_hook") for block in _blocks(transformer) for module in block.modules())


def _blocks(transformer: Any) -> list[Any]:
    return [
        module for module in transformer.modules() if type(module).__name__ in transformer._repeated_blocks
    ]


def _widths(transformer: Any) -> int:
    return len(_blocks(transformer)) * family_of(transformer).layers.width(transformer)


@contextmanager
def _fastest_attention(pipe: Any, size: Size) -> Iterator[str]:
    """Attention by the fastest kernel for a picture of `size`; yields its name, "" where nothing is changed: on a CPU,
    and where the transformer's owner has chosen one."""
    device, transformer = pipe._execution_device, pipe.transformer
    if device.type != "cuda" or _has_own_attention(transformer):
        yield ""
        return
    tokens = num_tokens(pipe, size)
    shape = (1, tokens, *family_of(pipe).layers.heads(transformer))
    kernels = kernels_for(transformer)
    seconds = measured_kernels(kernels, shape, device=device, dtype=transformer.dtype, backward=False)
    name = min(seconds, key=lambda kernel: seconds[kernel])
    with attention_backend(name):
        yield name


def _has_own_attention(transformer: Any) -> bool:
    if getattr(transformer, "_parallel_config", None) is not None:
        return True
    return any(processor._attention_backend is not None for processor in transformer.attn_processors.values())

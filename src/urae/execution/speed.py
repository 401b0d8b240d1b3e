"""How fast a picture is made: which work is left out, and by which kernels the rest is done.

"exact" leaves nothing out: what changes is rounding. On CUDA attention runs by the kernel that is fastest here, by
measurement. The transformer's blocks are compiled where that pays: compiling takes half a minute, which a single small
picture never gives back. "fast" adds a cache (`urae.execution.caches`). The decision
is a `SpeedPlan`, which says its reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from urae.execution.attention import attention_for_drawing
from urae.execution.cache_hooks import cached, check_free
from urae.execution.caches import FirstBlock, Speed, StepCache, cache_of, speed_text
from urae.execution.choices import Compile
from urae.execution.compiling import BY_LAYER, compiled_blocks, decide_to_compile
from urae.execution.memory import MemoryPlan
from urae.resolution import Size

__all__ = ["SpeedPlan", "plan_speed"]


@dataclass(frozen=True, kw_only=True)
class SpeedPlan:
    """A decision about speed, and the reason for compiling or not in words."""

    cache: StepCache | None
    """None is exact."""
    steps: int
    """Denoising steps of the pass that it is for."""
    compile: bool
    """Whether the transformer's blocks are compiled."""
    reason: str

    def __str__(self) -> str:
        return f"{self._caching()}, blocks {'compiled' if self.compile else 'eager'}: {self.reason}"

    @contextmanager
    def on(self, pipe: Any, size: Size) -> Iterator[dict[str, str]]:
        """Run the transformer by the chosen kernels at `size`; yields what a picture's `info` says about them."""
        with attention_for_drawing(pipe, size) as kernel, compiled_blocks(pipe.transformer, self.compile):
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
        return f"{speed_text(self.cache)} ({computed} of {self.steps} steps computed)"


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
            f"speed {speed_text(cache)} decides by the tokens that a process sees, and {context_parallel} processes "
            "that share a picture would decide differently: take taylorseer"
        )
    if cache and steps <= cache.warm_up:
        raise ValueError(
            f"speed {speed_text(cache)} has no effect in {steps} steps, of which it computes the first "
            f"{cache.warm_up} in full: take more steps, or speed exact"
        )
    calls = num_images * ((cache.num_computed(steps) if cache else None) or steps)
    obstacle = "processes share a picture" if context_parallel > 1 else ""
    compiles, reason = decide_to_compile(
        pipe,
        size,
        compile,
        calls=calls,
        device=memory.device,
        obstacle=obstacle or (BY_LAYER if memory.offload == "sequential" else ""),
    )
    return SpeedPlan(cache=cache, steps=steps, compile=compiles, reason=reason)

"""Prompts and seeds, each drawn several ways: what each costs and what it draws, side by side.

Every way is drawn by itself, the native pass of the two-pass methods included, so that seconds and transformer calls
are those of a user who wants that one picture.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image

from urae.adapters import Adapter, Stack
from urae.execution import MemoryPlan, Speed, forward_replaced, plan_memory
from urae.execution.choices import Compile
from urae.families import family_of
from urae.generation.drawing import generate
from urae.generation.methods import Method
from urae.generation.native import TwoPass
from urae.generation.seeds import seeds_of
from urae.pages import SheetPart, SheetPicture, is_reduced, sheet_picture, tile_of
from urae.pages.sheet import MIDDLE
from urae.resolution import ResolutionPolicy, Size

__all__ = ["NATIVE", "Way", "WayResult", "about", "compare_ways", "drawn", "grid", "tiles_of"]

WARM_UP = (64, 64)
"""Size of a picture that is not counted, pixels."""
NATIVE = "native picture"


@dataclass(frozen=True, kw_only=True)
class Way:
    """One way of drawing the prompt."""

    label: str
    method: Method
    policy: ResolutionPolicy | Literal["auto", "none"] = "auto"
    adapter: Adapter | Stack | None = None
    steps: int | Literal["auto"] = "auto"
    """Denoising steps at the target size; "auto" is the method's own."""
    speed: Speed = "exact"
    """exact, fast, or a cache."""
    compile: Compile = "auto"
    """As `generate` takes it. Compiling happens once in a process, and counts against the first picture."""

    @property
    def num_steps(self) -> int:
        """Denoising steps of both passes."""
        native = self.method.native_steps if isinstance(self.method, TwoPass) else 0
        return native + (self.method.steps if self.steps == "auto" else self.steps)


@dataclass(frozen=True, kw_only=True)
class WayResult:
    """What one way has drawn, and what it cost."""

    label: str
    image: Image.Image
    """With everything that decided its pixels in `info`."""
    native: Image.Image | None
    """The picture that a two-pass method started from."""
    seconds: float
    """Of both passes, VAE and text encoders included."""
    native_seconds: float
    """The part of them until the native picture was there; 0 for a method of one pass."""
    calls: int
    """Of the transformer; a batch of windows is one."""
    tokens: int
    """Image tokens in all these calls."""
    peak_bytes: int | None
    """Largest memory in use: allocated on a CUDA device, else of the whole process; None where nobody tells."""
    numbers: Mapping[str, float]
    """What `measures` said about the image."""


def compare_ways(
    pipe: Any,
    prompt: str | Sequence[str],
    ways: Sequence[Way],
    *,
    size: Size,
    seed: int | str | Sequence[int | str] = 0,
    measures: Mapping[str, Callable[[Image.Image], float]] | None = None,
    memory: MemoryPlan | Literal["auto"] = "auto",
    on_step: Callable[[], None] = lambda: None,
    on_result: Callable[[WayResult], None] = lambda result: None,
) -> list[WayResult]:
    """Draw each prompt with each seed in every way, with a stock pipeline at `size` (width, height, pixels): the ways
    of the first prompt's first seed first.

    `measures`: numbers of a picture by name, such as `urae.metrics.repetition`. The rest is as in `generate`. A
    small picture of one step, which is not counted, pays for what happens only once. Raises ValueError for two ways of
    one label, and what `generate` raises.
    """
    labels = [way.label for way in ways]
    if len(set(labels)) < len(labels):
        raise ValueError(f"the ways are labelled {', '.join(labels)}: expected another label for each")
    prompts = [prompt] if isinstance(prompt, str) else list(prompt)
    plan = plan_memory(pipe, size) if memory == "auto" else memory
    results = []
    with ExitStack() as stack:
        if plan.offload == "none":
            # Moving the weights to the device and back would count against every way.
            stack.enter_context(replace(plan, decode="whole").on(pipe))
            plan = replace(plan, offload="unchanged")
        # In two steps, because a schedule that is stretched to end at a noise level has no single one.
        generate(pipe, prompts[0], size=WARM_UP, steps=2, policy="none", memory=plan)
        for text, one, way in product(prompts, seeds_of(seed), ways):
            result = drawn(
                pipe, text, way, size=size, seed=one, measures=measures or {}, memory=plan, on_step=on_step
            )
            on_result(result)
            results.append(result)
    return results


def drawn(
    pipe: Any,
    prompt: str,
    way: Way,
    *,
    size: Size,
    seed: int,
    measures: Mapping[str, Callable[[Image.Image], float]],
    memory: MemoryPlan,
    on_step: Callable[[], None] = lambda: None,
) -> WayResult:
    """Draw `prompt` one way, and say what it cost; the settings are those of `compare_ways`."""
    natives: list[tuple[Image.Image, float]] = []
    with _calls_counted(pipe.transformer) as calls, _peak_measured(memory.device) as peak:
        start = time.perf_counter()
        image: Any = generate(
            pipe,
            prompt,
            size=size,
            method=way.method,
            adapter=way.adapter,
            policy=way.policy,
            seed=seed,
            steps=way.steps,
            memory=memory,
            speed=way.speed,
            compile=way.compile,
            on_step=on_step,
            on_native=lambda picture: natives.append((picture, time.perf_counter() - start)),
        )
        seconds = time.perf_counter() - start
    native, native_seconds = natives[0] if natives else (None, 0.0)
    return WayResult(
        label=way.label,
        image=image,
        native=native,
        seconds=seconds,
        native_seconds=native_seconds,
        calls=len(calls),
        tokens=sum(calls),
        peak_bytes=peak[0],
        numbers={name: measure(image) for name, measure in measures.items()},
    )


@contextmanager
def _calls_counted(transformer: Any) -> Iterator[list[int]]:
    """The image tokens of each call, as they come."""
    calls: list[int] = []

    def counted(forward: Callable[..., Any]) -> Callable[..., Any]:
        def call(**inputs: Any) -> Any:
            calls.append(family_of(transformer).calls.num_image_tokens(inputs))
            return forward(**inputs)

        return call

    with forward_replaced(transformer, counted, what="compare"):
        yield calls


STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
"""Where Linux tells the peak of a process, and where 5 sets it back."""


@contextmanager
def _peak_measured(device: str) -> Iterator[list[int | None]]:
    """The peak in bytes, as the only entry of a list, once the block is left."""
    peak: list[int | None] = []
    on_cuda = device.startswith("cuda")
    if on_cuda:
        torch.cuda.reset_peak_memory_stats(device)
    elif RESET.exists():
        RESET.write_text("5")
    yield peak
    if on_cuda:
        peak.append(torch.cuda.max_memory_allocated(device))
    elif RESET.exists():
        line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM"))
        peak.append(int(line.split()[1]) * 1024)
    else:
        peak.append(None)


# The picture of the whole


def grid(results: Sequence[WayResult], *, prompt: str) -> Image.Image:
    """A sheet of one prompt: each picture reduced, its label and its cost; below it its middle pixel by pixel, left out
    where the picture is hardly reduced. The first native picture comes first."""
    tiles = [tile for result in results for tile in tiles_of(result)]
    natives = [tile for tile in tiles if tile.label == NATIVE]
    shown = [*natives[:1], *(tile for tile in tiles if tile.label != NATIVE)]
    return sheet_picture([SheetPart(heading=prompt, note=about(results[0].image.size), tiles=shown)])


def about(size: Size) -> str:
    """What stands above pictures of this size on a sheet."""
    below = "; below each picture a part of it, pixel by pixel" if is_reduced(size[0]) else ""
    return f"{size[0]} x {size[1]} px{below}"


def tiles_of(
    result: WayResult, *, file: str = "", crops: Sequence[tuple[float, float]] = (MIDDLE,)
) -> list[SheetPicture]:
    """The picture on a sheet, after the native one that it started from, if there is one."""
    native, cost = result.native, f"{result.seconds:.1f} s, {result.calls} transformer calls"
    tiles = [tile_of(native, label=NATIVE, note=f"{native.width} x {native.height} px")] if native else []
    return [*tiles, tile_of(result.image, label=result.label, note=cost, file=file, crops=crops)]

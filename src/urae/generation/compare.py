"""One prompt and seed, several ways: what each costs and what it draws, side by side.

Every way is drawn by itself, the native pass of the two-pass methods included, so that seconds and transformer calls
are those of a user who wants that one picture.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image, ImageDraw, ImageFont

from urae.adapters import Adapter, Stack
from urae.execution import MemoryPlan, Speed, forward_replaced, plan_memory
from urae.execution.choices import Compile
from urae.families import family_of
from urae.generation.drawing import generate
from urae.generation.methods import Method
from urae.generation.native import TwoPass
from urae.resolution import ResolutionPolicy, Size

__all__ = ["Way", "WayResult", "compare_ways", "drawn", "grid"]

WARM_UP = (64, 64)
"""Size of a picture that is not counted, pixels."""


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
    prompt: str,
    ways: Sequence[Way],
    *,
    size: Size,
    seed: int = 0,
    measures: Mapping[str, Callable[[Image.Image], float]] | None = None,
    memory: MemoryPlan | Literal["auto"] = "auto",
    on_step: Callable[[], None] = lambda: None,
    on_result: Callable[[WayResult], None] = lambda result: None,
) -> list[WayResult]:
    """Draw `prompt` each way with a stock FluxPipeline at `size` (width, height, pixels).

    `measures`: numbers of a picture by name, such as `urae.metrics.repetition`. The rest is as in `generate`. A
    small picture of one step, which is not counted, pays for what happens only once. Raises ValueError for two ways of
    one label, and what `generate` raises.
    """
    labels = [way.label for way in ways]
    if len(set(labels)) < len(labels):
        raise ValueError(f"the ways are labelled {', '.join(labels)}: expected another label for each")
    plan = plan_memory(pipe, size) if memory == "auto" else memory
    results = []
    with ExitStack() as stack:
        if plan.offload == "none":
            # Moving the weights to the device and back would count against every way.
            stack.enter_context(replace(plan, decode="whole").on(pipe))
            plan = replace(plan, offload="unchanged")
        # In two steps, because a schedule that is stretched to end at a noise level has no single one.
        generate(pipe, prompt, size=WARM_UP, steps=2, policy="none", memory=plan)
        for way in ways:
            result = drawn(
                pipe, prompt, way, size=size, seed=seed, measures=measures or {}, memory=plan, on_step=on_step
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

CELL, GAP, MARGIN, MAX_COLUMNS = 320, 20, 24, 5
INK, SOFT, PAPER = "#1d2430", "#5b6472", "#ffffff"


def grid(results: Sequence[WayResult], *, prompt: str) -> Image.Image:
    """A sheet with each picture reduced, its label and its cost; below it a part of it pixel by pixel.

    The part is the middle one, and left out where the picture is hardly reduced. The first native picture comes first.
    """
    cells = [cell for cell in (_native_cell(results), *map(_cell, results)) if cell]
    rows = math.ceil(len(cells) / MAX_COLUMNS)
    columns = math.ceil(len(cells) / rows)
    width = columns * (CELL + GAP) - GAP
    heading = _heading(results[0].image, prompt, width)
    height = max(cell.height for cell in cells)
    top = MARGIN + heading.height + GAP
    size = (width + 2 * MARGIN, top + rows * (height + GAP) - GAP + MARGIN)
    sheet = Image.new("RGB", size, PAPER)
    sheet.paste(heading, (MARGIN, MARGIN))
    for place, cell in enumerate(cells):
        row, column = divmod(place, columns)
        sheet.paste(cell, (MARGIN + column * (CELL + GAP), top + row * (height + GAP)))
    return sheet


def _heading(image: Image.Image, prompt: str, width: int) -> Image.Image:
    about = f"{image.width} x {image.height} px"
    if _is_reduced(image):
        about += "; below each picture its middle, pixel by pixel"
    return _column([(prompt, INK, 24), (about, SOFT, 15)], [], width)


def _native_cell(results: Sequence[WayResult]) -> Image.Image | None:
    native = next((result.native for result in results if result.native), None)
    return native and _labelled(native, "native picture", f"{native.width} x {native.height} px")


def _cell(result: WayResult) -> Image.Image:
    cost = f"{result.seconds:.1f} s, {result.calls} transformer calls"
    return _labelled(result.image, result.label, cost)


def _labelled(image: Image.Image, label: str, below: str) -> Image.Image:
    """Label, cost, the picture as wide as a column, and its middle at full size."""
    image = image.convert("RGB")
    whole = image.resize((CELL, round(CELL * image.height / image.width)), Image.Resampling.LANCZOS)
    pictures = [whole, _middle(image)] if _is_reduced(image) else [whole]
    return _column([(label, INK, 18), (below, SOFT, 15)], pictures, CELL)


def _column(
    texts: Sequence[tuple[str, str, int]], pictures: Sequence[Image.Image], width: int
) -> Image.Image:
    """Texts (words, colour, size), broken into lines where they are wider, and pictures, one below the other."""
    lines = [(line, ink, size) for text, ink, size in texts for line in _wrapped(text, _font(size), width)]
    height = sum(_line_height(size) for _, _, size in lines) + sum(8 + picture.height for picture in pictures)
    column = Image.new("RGB", (width, height), PAPER)
    draw, top = ImageDraw.Draw(column), 0
    for line, ink, size in lines:
        draw.text((0, top), line, fill=ink, font=_font(size))
        top += _line_height(size)
    for picture in pictures:
        column.paste(picture, (0, top + 8))
        top += 8 + picture.height
    return column


def _is_reduced(image: Image.Image) -> bool:
    return image.width > 1.5 * CELL


def _middle(image: Image.Image) -> Image.Image:
    """The part in the middle that fills a column pixel by pixel."""
    height = min(CELL, image.height)
    left, top = (image.width - CELL) // 2, (image.height - height) // 2
    return image.crop((left, top, left + CELL, top + height))


def _wrapped(text: str, font: Any, width: int) -> list[str]:
    """`text` in lines that are no wider than `width` pixels, if no single word is."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def _line_height(size: int) -> int:
    return round(1.3 * size)


@lru_cache
def _font(size: int) -> Any:
    return ImageFont.load_default(size)

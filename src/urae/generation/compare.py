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

from urae.adapters import Adapter
from urae.generation.forward import forward_replaced
from urae.generation.generate import generate
from urae.generation.memory import MemoryPlan, plan_memory
from urae.generation.methods import Method
from urae.generation.native import TwoPass
from urae.resolution import ResolutionPolicy, Size

__all__ = ["Outcome", "Way", "compare_ways", "grid"]

WARM_UP = (64, 64)
"""Size of a picture that is not counted, pixels."""


@dataclass(frozen=True, kw_only=True)
class Way:
    """One way of drawing the prompt."""

    label: str
    method: Method
    policy: ResolutionPolicy | Literal["auto", "none"] = "auto"
    adapter: Adapter | None = None
    steps: int | Literal["auto"] = "auto"
    """Denoising steps at the target size; "auto" is the method's own."""

    @property
    def num_steps(self) -> int:
        """Denoising steps of both passes."""
        native = self.method.native_steps if isinstance(self.method, TwoPass) else 0
        return native + (self.method.steps if self.steps == "auto" else self.steps)


@dataclass(frozen=True, kw_only=True)
class Outcome:
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
    on_outcome: Callable[[Outcome], None] = lambda outcome: None,
) -> list[Outcome]:
    """Draw `prompt` each way with a stock FluxPipeline at `size` (width, height, pixels).

    `measures`: numbers of a picture by name, such as `urae.evaluation.repetition`. The rest is as in `generate`. A
    small picture of one step, which is not counted, pays for what happens only once. Raises ValueError for two ways of
    one label, and what `generate` raises.
    """
    labels = [way.label for way in ways]
    if len(set(labels)) < len(labels):
        raise ValueError(f"the ways are labelled {', '.join(labels)}: expected another label for each")
    plan = plan_memory(pipe, size) if memory == "auto" else memory
    outcomes = []
    with ExitStack() as stack:
        if plan.offload == "none":
            # Moving the weights to the device and back would count against every way.
            stack.enter_context(replace(plan, tile_vae=False).on(pipe))
            plan = replace(plan, offload="unchanged")
        generate(pipe, prompt, size=WARM_UP, steps=1, policy="none", memory=plan)
        for way in ways:
            outcome = _drawn(pipe, prompt, way, size, seed, measures or {}, plan, on_step)
            on_outcome(outcome)
            outcomes.append(outcome)
    return outcomes


def _drawn(
    pipe: Any,
    prompt: str,
    way: Way,
    size: Size,
    seed: int,
    measures: Mapping[str, Callable[[Image.Image], float]],
    plan: MemoryPlan,
    on_step: Callable[[], None],
) -> Outcome:
    natives: list[tuple[Image.Image, float]] = []
    with _calls_counted(pipe.transformer) as calls, _peak_measured(plan.device) as peak:
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
            memory=plan,
            on_step=on_step,
            on_native=lambda picture: natives.append((picture, time.perf_counter() - start)),
        )
        seconds = time.perf_counter() - start
    native, native_seconds = natives[0] if natives else (None, 0.0)
    return Outcome(
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
        def call(*, hidden_states: torch.Tensor, **settings: Any) -> Any:
            calls.append(hidden_states.shape[0] * hidden_states.shape[1])
            return forward(hidden_states=hidden_states, **settings)

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


def grid(outcomes: Sequence[Outcome], *, prompt: str) -> Image.Image:
    """A sheet with each picture reduced, its label and its cost; below it a part of it pixel by pixel.

    The part is the middle one, and left out where the picture is hardly reduced. The first native picture comes first.
    """
    cells = [_native_cell(outcomes), *(_cell(outcome) for outcome in outcomes)]
    shown = [cell for cell in cells if cell]
    columns = min(MAX_COLUMNS, len(shown))
    height = max(cell.height for cell in shown)
    heading = _wrapped(prompt, _font(24), columns * (CELL + GAP) - GAP)
    top = MARGIN + 32 * len(heading) + GAP
    rows = math.ceil(len(shown) / columns)
    sheet = Image.new(
        "RGB",
        (2 * MARGIN + columns * (CELL + GAP) - GAP, top + rows * (height + GAP) - GAP + MARGIN),
        PAPER,
    )
    draw = ImageDraw.Draw(sheet)
    for number, line in enumerate(heading):
        draw.text((MARGIN, MARGIN + 32 * number), line, fill=INK, font=_font(24))
    for place, cell in enumerate(shown):
        row, column = divmod(place, columns)
        sheet.paste(cell, (MARGIN + column * (CELL + GAP), top + row * (height + GAP)))
    return sheet


def _native_cell(outcomes: Sequence[Outcome]) -> Image.Image | None:
    native = next((outcome.native for outcome in outcomes if outcome.native), None)
    return native and _labelled(native, "native picture", f"{native.width} x {native.height} px")


def _cell(outcome: Outcome) -> Image.Image:
    cost = f"{outcome.seconds:.1f} s, {outcome.calls} transformer calls"
    return _labelled(outcome.image, outcome.label, cost)


def _labelled(image: Image.Image, label: str, below: str) -> Image.Image:
    """A column of label, cost, the picture at the column's width, and its middle at full size."""
    image = image.convert("RGB")
    whole = image.resize((CELL, round(CELL * image.height / image.width)), Image.Resampling.LANCZOS)
    pictures = [whole, _middle(image)] if image.width > 1.5 * CELL else [whole]
    lines = [(line, INK, _font(18)) for line in _wrapped(label, _font(18), CELL)]
    lines.append((below, SOFT, _font(15)))
    height = 24 * len(lines) + 4 + sum(picture.height + 8 for picture in pictures) - 8
    cell = Image.new("RGB", (CELL, height), PAPER)
    draw, top = ImageDraw.Draw(cell), 0
    for text, color, font in lines:
        draw.text((0, top), text, fill=color, font=font)
        top += 24
    top += 4
    for picture in pictures:
        cell.paste(picture, (0, top))
        top += picture.height + 8
    return cell


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


@lru_cache
def _font(size: int) -> Any:
    return ImageFont.load_default(size)

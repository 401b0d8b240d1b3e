"""Other models' own pipelines, for comparison: PixArt-Sigma and Sana, in the diffusers layout on this machine.

They run as diffusers ships them, at any size, without adapter, policy or method of ours. Two of their conveniences are
off: resizing to a table of sizes, and rewriting the prompt before it is read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import diffusers
import torch
from huggingface_hub import try_to_load_from_cache
from PIL import Image

from urae.errors import BadFile
from urae.execution import MemoryPlan, this_process
from urae.families import DTYPES, model_name
from urae.generation.direct import after_each_step
from urae.io import field_of, read_json_object
from urae.provenance import Provenance, versions
from urae.resolution import check_size

__all__ = [
    "STOCK",
    "Stock",
    "StockPlan",
    "local_folder",
    "open_stock",
    "plan_stock",
    "stock_dtype",
    "stock_memory",
    "stock_of",
]


@dataclass(frozen=True, kw_only=True)
class Stock:
    """A pipeline class of diffusers, and how it is called."""

    name: str
    """Of the class."""
    steps: int = 20
    """Its own default, as is the guidance."""
    guidance: float = 4.5
    settings: Mapping[str, Any] = field(
        default_factory=lambda: {"use_resolution_binning": False, "clean_caption": False}
    )
    tells_steps: Callable[[Callable[[], None]], dict[str, Any]]
    """The keyword by which it reports each step."""


def _older_callback(on_step: Callable[[], None]) -> dict[str, Any]:
    return {"callback": lambda step, time, latents: on_step()}


STOCK: dict[str, Stock] = {
    "PixArtSigmaPipeline": Stock(name="PixArtSigmaPipeline", tells_steps=_older_callback),
    "SanaPipeline": Stock(
        name="SanaPipeline",
        tells_steps=lambda on_step: {"callback_on_step_end": after_each_step(on_step)},
    ),
}
"""By the class that a folder's model_index.json names."""


def stock_of(name: str | Path) -> Stock | None:
    """What to call for a model here, by folder or hub id; None where it is none of `STOCK`, such as FLUX."""
    folder = local_folder(name)
    index = Path(folder or name) / "model_index.json"
    if not index.is_file():
        return None
    try:
        return STOCK.get(field_of(read_json_object(index), "_class_name", str, name=index))
    except BadFile as error:
        raise BadFile(f"{index} names no pipeline: download the model again") from error


def local_folder(name: str | Path) -> Path | None:
    """Where a model is on this machine: the folder itself, or that of a hub id in the hub's cache."""
    if Path(name).is_dir():
        return Path(name)
    if not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", str(name)):
        return None
    index = try_to_load_from_cache(str(name), "model_index.json")
    return Path(index).parent if isinstance(index, str) else None


def open_stock(name: str | Path, *, dtype: torch.dtype) -> Any:
    """The pipeline of a model that `stock_of` knows, on the CPU. `BadFile` where its weights cannot be read."""
    stock, folder = stock_of(name), local_folder(name)
    if stock is None or folder is None:
        raise ValueError(f"{name} is not a model to compare with: expected one of {', '.join(STOCK)}")
    # Sana's repositories hold bfloat16 files under a name of their own.
    half = any(folder.glob("transformer/*.bf16*.safetensors"))
    try:
        return getattr(diffusers, stock.name).from_pretrained(
            str(folder), dtype=dtype, use_safetensors=True, variant="bf16" if half else None
        )
    except (OSError, ValueError) as error:
        raise BadFile(f"{folder} cannot be read as a {stock.name}: {error}") from error


def stock_dtype(name: str) -> torch.dtype:
    """What such a model computes in: one of `DTYPES`; "auto" is bfloat16 on a GPU."""
    if name == "auto":
        return torch.bfloat16 if torch.cuda.is_available() else torch.float32
    return DTYPES[name]


def stock_memory(offload: str, decode: str) -> MemoryPlan:
    """As asked; where that is "auto", whole on the GPU, if there is one: these models are small beside FLUX."""
    way: Any = "whole" if decode == "auto" else decode
    on_cuda = torch.cuda.is_available()
    chosen: Any = offload if offload != "auto" else "none" if on_cuda else "unchanged"
    return MemoryPlan(device=str(this_process().device) if on_cuda else "cpu", offload=chosen, decode=way)


@dataclass(frozen=True, kw_only=True)
class StockPlan:
    """Pictures to be made by such a pipeline. As text it is what a user is told before it runs."""

    pipe: Any = field(repr=False, compare=False)
    memory: MemoryPlan
    made: tuple[Provenance, ...]
    """What each picture will say about itself, all seeds of the first prompt first."""

    def __str__(self) -> str:
        return f"memory: {self.memory}"

    @property
    def num_steps(self) -> int:
        """Denoising steps of all pictures."""
        return sum(made.steps for made in self.made)

    def only(self, places: Sequence[int]) -> StockPlan:
        """The plan for some of the pictures, by their places in the list."""
        return replace(self, made=tuple(self.made[place] for place in places))

    def run(
        self,
        *,
        on_step: Callable[[], None] = lambda: None,
        on_image: Callable[[Image.Image], None] = lambda image: None,
    ) -> list[Image.Image]:
        """Make the pictures; what each was made from is in its `info`."""
        images = []
        with self.memory.on(self.pipe):
            for made in self.made:
                image = _drawn(self.pipe, made, on_step)
                image.info.update(made.to_info())
                on_image(image)
                images.append(image)
        return images


def plan_stock(
    pipe: Any,
    prompts: Sequence[str],
    *,
    size: int | Sequence[int],
    seeds: Sequence[int] = (0,),
    steps: int = 0,
    guidance: float | None = None,
    memory: MemoryPlan,
) -> StockPlan:
    """An image of every prompt with every seed. `steps` 0 and `guidance` None are the pipeline's own. `ValueError` for
    a size, or steps, out of range."""
    stock = STOCK[type(pipe).__name__]
    if steps < 0:
        raise ValueError(f"steps is {steps}: expected 1 or more, or 0 for the {stock.steps} of {stock.name}")
    shared = {
        "size": check_size(size),
        "steps": steps or stock.steps,
        "guidance": stock.guidance if guidance is None else guidance,
    }
    made = [_provenance(pipe, memory, prompt=p, seed=seed, **shared) for p in prompts for seed in seeds]
    return StockPlan(pipe=pipe, memory=memory, made=tuple(made))


def _drawn(pipe: Any, made: Provenance, on_step: Callable[[], None]) -> Image.Image:
    stock, (width, height) = STOCK[type(pipe).__name__], made.size
    return pipe(
        made.prompt,
        width=width,
        height=height,
        num_inference_steps=made.steps,
        guidance_scale=made.guidance,
        generator=torch.Generator("cpu").manual_seed(made.seed),
        **stock.settings,
        **stock.tells_steps(on_step),
    ).images[0]


def _provenance(pipe: Any, memory: MemoryPlan, **asked: Any) -> Provenance:
    return Provenance(
        **asked,
        method=type(pipe).__name__,
        options={},
        native="",
        policy=None,
        adapter_hash="",
        adapter_file="",
        model=model_name(pipe),
        memory=str(memory),
        versions=versions(),
        dtype=str(pipe.transformer.dtype).removeprefix("torch."),
    )

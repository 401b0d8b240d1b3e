"""`plan`: does a run fit on a GPU, with which settings, for how long and at what price; before it is begun.

Memory is reckoned phase by phase (`urae.planning.memory`), time from the operations of a step
(`urae.planning.compute`) and the share of the GPU's peak rate that a run reaches
(`urae.planning.efficiency`). No weights are loaded: the answer takes seconds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import torch

from urae.adapters import Full, Lora
from urae.execution.choices import BY_ERROR, Checkpointing
from urae.families import Architecture, open_architecture
from urae.planning.adapter import adapter_size
from urae.planning.compute import Tokens, Trained, step_work, trained_by
from urae.planning.disk import adapter_bytes, cache_bytes, checkpoint_bytes
from urae.planning.drawing import DrawingNeeds, drawing
from urae.planning.efficiency import Efficiency, efficiency_of
from urae.planning.gpus import GIB, GPUS, Gpu, gpu_named
from urae.planning.host import block_bytes, locked_bytes, saved_bytes, seconds_of, swapped_bytes
from urae.planning.memory import offloaded_bytes, phases, usable
from urae.resolution import num_image_tokens, text_tokens
from urae.training import Recipe
from urae.training.samples import has_negative
from urae.training.validation import SIGMAS

__all__ = ["Option", "TrainingNeeds", "call_seconds", "plan"]

CHOICES: tuple[Checkpointing, ...] = (False, "attention", "full")
"""Ways to keep activations, from the fastest to the smallest."""

ROUNDING = ("as_loaded", *BY_ERROR)
"""Ways to store the base, from the most exact to the least."""

SMALLER: dict[str, tuple[Literal["int8", "nf4"], ...]] = {
    "as_loaded": ("int8", "nf4"),
    "fp8": ("nf4",),
    "fp8_dynamic": ("nf4",),
    "int8": ("nf4",),
}
"""Those that need less, by the recipe's own. fp8 is not among them: int8 needs as much and rounds less."""


@dataclass(frozen=True, kw_only=True)
class Option:
    """A recipe's run with activations and weights kept and stored in one way and its batch in so many parts."""

    recipe: Recipe
    phases: dict[str, int]
    """Most bytes on one GPU in each phase of the run."""
    fits: bool
    seconds: float
    """Per optimizer step."""
    moved: int
    """Bytes that come and go between a GPU and the host in an optimizer step."""
    host: int
    """Bytes that the host keeps for a GPU at most."""
    locked: float
    """Bytes of page-locked memory that this takes on the host, for all GPUs."""

    @property
    def num_bytes(self) -> int:
        """The most of all phases."""
        return max(self.phases.values())

    @property
    def settings(self) -> dict[str, str]:
        """What distinguishes options, as keys and values of the command line."""
        recipe = self.recipe
        return {
            "gradient_checkpointing": _word(recipe.gradient_checkpointing),
            "gradient_accumulation": str(recipe.gradient_accumulation),
            "sample_every": str(recipe.sample_every),
            "offload_activations": str(recipe.offload_activations).lower(),
            "swap_blocks": str(recipe.swap_blocks),
            "compile": str(recipe.compile).lower(),
            "base_weights": recipe.base_weights,
        }

    @property
    def uses_host(self) -> bool:
        """Whether the host's memory stands in for the GPU's."""
        return self.recipe.offload_activations or self.recipe.swap_blocks > 0


@dataclass(frozen=True, kw_only=True)
class TrainingNeeds:
    """What a run will need."""

    asked: Option
    """The recipe as it is."""
    options: tuple[Option, ...]
    """The same run in other ways, the fastest first; after them those that use the host's memory, and then, where
    the GPU alone has no room, those on a base that is rounded more."""
    gpu: Gpu
    num_gpus: int
    price: float
    """Of one GPU for one hour; 0 if it does not matter."""
    efficiency: Efficiency
    hours: dict[str, float]
    """Of training, validation and samples, on all GPUs together at work."""
    disk: dict[str, int]
    """Bytes of the cache (one image with two captions), a checkpoint, the adapter."""
    num_images: int
    """Of the data set; 0 where that is not known."""
    host_memory: float
    """Bytes of the machine that the GPUs are in; infinite where they do not matter."""
    drawing: DrawingNeeds
    """A picture of the recipe's size on one of these GPUs."""

    @property
    def fits(self) -> bool:
        """Whether the recipe runs on this GPU as it is."""
        return self.asked.fits

    @property
    def best(self) -> Option | None:
        """The fastest way that fits, with the host's memory only if none does without, on a base that is rounded more
        only if none does with it; None if none does."""
        return next((option for option in self.options if option.fits), None)

    @property
    def changes(self) -> dict[str, str]:
        """Settings of the best option that differ from the recipe's; empty if there are none or none fits."""
        if self.best is None:
            return {}
        own = self.asked.settings
        return {key: value for key, value in self.best.settings.items() if value != own[key]}

    @property
    def seconds_per_step(self) -> float:
        return self.asked.seconds

    @property
    def total_hours(self) -> float:
        return sum(self.hours.values())

    @property
    def best_hours(self) -> float:
        """Of the best option; not a number where none fits."""
        if self.best is None:
            return math.nan
        training = self.hours["training"] * self.best.seconds / self.seconds_per_step
        samples = self.hours["samples"] if self.best.recipe.sample_every else 0
        return training + self.hours["validation"] + samples

    @property
    def disk_bytes(self) -> int:
        """Of everything that the run writes, the cache of `num_images` included."""
        # One checkpoint more while the next is written and the oldest not yet removed.
        checkpoints = (self.asked.recipe.keep_checkpoints + 1) * self.disk["checkpoint"]
        return self.num_images * self.disk["cache"] + checkpoints + self.disk["adapter"]

    @property
    def cost(self) -> float:
        return self.total_hours * self.num_gpus * self.price

    def roomy(self) -> list[str]:
        """Known GPUs on which some option fits."""
        least = min(option.num_bytes for option in self.options)
        return [gpu.name for gpu in GPUS.values() if least <= usable(gpu)]


def plan(
    recipe: Recipe,
    gpu: str | Gpu,
    *,
    num_gpus: int = 1,
    price: float = 0.0,
    host_memory: float = math.inf,
    num_images: int = 0,
) -> TrainingNeeds:
    """What training by `recipe` needs on `num_gpus` GPUs of this kind.

    gpu: a name of `urae.planning.GPUS`, or a `Gpu` of your own. price: of one GPU for one hour, in any currency.
    host_memory: GiB of the machine that the GPUs are in, which ways that use it share. num_images: of the data set,
    whose cache takes disk. Raises ValueError for an unknown GPU or model, and for a batch that the GPUs cannot share.
    """
    gpu = gpu if isinstance(gpu, Gpu) else gpu_named(gpu)
    if recipe.compile == "auto":
        recipe = replace(recipe, compile=False)  # which needs more
    recipe.images_at_a_time(num_gpus)  # which refuses what cannot be shared
    architecture = open_architecture(recipe.model, dtype=_loaded_as(recipe))
    efficiency = efficiency_of(gpu, recipe.size)
    rate = efficiency.share * gpu.tflops * 1e12
    trained = trained_by(architecture.transformer, recipe.adapter)

    def option(variant: Recipe) -> Option:
        return _option(architecture, trained, variant, gpu, num_gpus, rate, host_memory * GIB)

    asked, others = option(recipe), list[Option]()
    for stored in (recipe, *_smaller(recipe)):
        if any(way.fits and not way.uses_host for way in others):
            break
        plain = [option(variant) for variant in _variants(stored, num_gpus)]
        if not any(way.fits for way in others):
            # A list of its own: options that need more of the host than there is would be taken up again for ever.
            plain = [*plain, *_with_host(plain, option, gpu, block_bytes(architecture.transformer, stored))]
        others += plain
    size = adapter_size(architecture.transformer, recipe.adapter)
    return TrainingNeeds(
        asked=asked,
        options=tuple(sorted(others, key=_preference)),
        gpu=gpu,
        num_gpus=num_gpus,
        price=price,
        efficiency=efficiency,
        hours=_hours(architecture, trained, recipe, num_gpus, asked.seconds, rate),
        disk={
            "cache": cache_bytes(architecture, recipe.size),
            "checkpoint": checkpoint_bytes(size, recipe),
            "adapter": adapter_bytes(size),
        },
        num_images=num_images,
        host_memory=host_memory * GIB,
        drawing=drawing(architecture, trained, recipe, gpu, rate),
    )


@lru_cache
def call_seconds(model: str, size: int, gpu: str | Gpu) -> float:
    """Of one call of a model's transformer on one image of `size` (px), as a denoising step makes it; an adapter adds a
    hundredth or two. Raises ValueError for an unknown GPU or model."""
    gpu = gpu if isinstance(gpu, Gpu) else gpu_named(gpu)
    architecture = open_architecture(model, dtype=torch.bfloat16)
    tokens = Tokens(image=num_image_tokens(architecture, size), text=text_tokens(architecture))
    work = step_work(trained_by(architecture.transformer, Lora(rank=1)), tokens, False)
    return work.forward / (efficiency_of(gpu, size).share * gpu.tflops * 1e12)


def _word(mode: Checkpointing) -> str:
    return "full" if mode is True else str(mode).lower()


def _loaded_as(recipe: Recipe) -> torch.dtype:
    whole = recipe.base_dtype == "fp32" or recipe.model == "mini"
    return torch.float32 if whole else torch.bfloat16


def _option(
    architecture: Architecture,
    trained: Trained,
    recipe: Recipe,
    gpu: Gpu,
    num_gpus: int,
    rate: float,
    host_memory: float,
) -> Option:
    needed = phases(architecture, trained, recipe, num_gpus=num_gpus)
    work = step_work(trained, _tokens(architecture, recipe), recipe.gradient_checkpointing)
    # GPUs that share an image's tokens each do their part of the work on it.
    shared, parts = recipe.context_parallel, recipe.gradient_accumulation
    images, rate = recipe.batch_size / num_gpus * shared, rate * shared
    weights = swapped_bytes(block_bytes(architecture.transformer, recipe), recipe.swap_blocks)
    kept = offloaded_bytes(architecture, trained, recipe)
    host = int(weights + images / parts * kept)
    locked = num_gpus * locked_bytes(host)
    return Option(
        recipe=recipe,
        phases=needed,
        fits=max(needed.values()) <= usable(gpu) and locked <= host_memory,
        seconds=seconds_of(work, gpu, rate, images=images, parts=parts, weights=weights, kept=kept),
        moved=int(2 * (parts * weights + images * kept)),
        host=host,
        locked=locked,
    )


def _preference(option: Option) -> tuple[int, bool, bool, float, int, int]:
    """Rounded least, with samples, on the GPU alone, fast, and of equally fast ones that which leaves least to the
    host, and then to the connection."""
    rounding = ROUNDING.index(option.recipe.base_weights)
    return (
        rounding,
        not option.recipe.sample_every,
        option.uses_host,
        option.seconds,
        option.host,
        option.moved,
    )


def _smaller(recipe: Recipe) -> list[Recipe]:
    """The recipe with its base stored in fewer bits; none for a full adapter."""
    kinds = () if isinstance(recipe.adapter, Full) else SMALLER.get(recipe.base_weights, ())
    return [replace(recipe, base_weights=kind) for kind in kinds]


def _variants(recipe: Recipe, num_gpus: int) -> Iterator[Recipe]:
    """The recipe with every way to keep activations, in every number of parts, and without samples if
    nothing else helps."""
    share = recipe.images_at_a_time(num_gpus) * recipe.gradient_accumulation
    for every in dict.fromkeys((recipe.sample_every, 0)):
        for mode in CHOICES:
            for parts in (number for number in range(1, share + 1) if share % number == 0):
                yield replace(
                    recipe,
                    gradient_checkpointing=mode,
                    gradient_accumulation=parts,
                    sample_every=every,
                    offload_activations=False,
                    swap_blocks=0,
                )


def _with_host(
    plain: list[Option], option: Callable[[Recipe], Option], gpu: Gpu, sizes: tuple[int, ...]
) -> Iterator[Option]:
    """What has room on the GPU with the host's memory of the options that have none: with activations there or not, and
    with the weights of as few blocks as will do."""
    for recipe in (way.recipe for way in plain if way.recipe.gradient_checkpointing and not way.fits):
        for offload in (False, True):
            swap = _least_swap(option(_using_host(recipe, offload=offload, swap=0)), gpu, sizes)
            found = option(_using_host(recipe, offload=offload, swap=swap))
            if found.num_bytes <= usable(gpu):
                yield found


def _using_host(recipe: Recipe, *, offload: bool, swap: int) -> Recipe:
    eager = swap > 0 or (offload and recipe.gradient_checkpointing == "attention")
    return replace(
        recipe, offload_activations=offload, swap_blocks=swap, compile=recipe.compile and not eager
    )


def _least_swap(without: Option, gpu: Gpu, sizes: tuple[int, ...]) -> int:
    """Blocks that must be swapped so that an option fits; all if that does not suffice."""
    excess = without.num_bytes - usable(gpu)
    enough = (num for num in range(len(sizes)) if saved_bytes(sizes, num) >= excess)
    return next(enough, len(sizes))


def _tokens(architecture: Architecture, recipe: Recipe) -> Tokens:
    return Tokens(image=num_image_tokens(architecture, recipe.size), text=text_tokens(architecture))


def _hours(
    architecture: Architecture, trained: Trained, recipe: Recipe, num_gpus: int, step: float, rate: float
) -> dict[str, float]:
    calls = 2 if has_negative(architecture, recipe) else 1
    call = step_work(trained, _tokens(architecture, recipe), False).forward / rate
    validations = recipe.steps // recipe.validate_every + 1 if recipe.validate_every else 0
    draws = recipe.steps // recipe.sample_every + 1 if recipe.sample_every else 0
    seconds = {
        "training": step * recipe.steps,
        "validation": validations * recipe.num_validation * len(SIGMAS) * call / num_gpus,
        # A picture is one process's, and all wait for the last.
        "samples": draws * -(-len(recipe.sample_prompts) // num_gpus) * recipe.sample_steps * calls * call,
    }
    return {name: value / 3600 for name, value in seconds.items()}

"""A plan in words, as `urae plan` and `urae train` print it."""

from __future__ import annotations

from typing import Any

from urae.io import duration
from urae.planning.drawing import DrawingNeeds
from urae.planning.memory import usable
from urae.planning.needs import Option, TrainingNeeds

__all__ = ["as_json", "in_short", "refusal", "report"]

GB = 1e9


def report(plan: TrainingNeeds) -> str:
    """The whole plan in some twenty lines."""
    recipe = plan.asked.recipe
    images = recipe.images_at_a_time(plan.num_gpus)
    lines = [
        f"{recipe.model} at {recipe.size} px, {recipe.steps:,} steps of {recipe.batch_size} images, on "
        f"{plan.num_gpus} x {plan.gpu.name} ({plan.gpu.memory:g} GiB, {plan.gpu.tflops:g} TFLOP/s)",
        in_short(plan),
        "",
        f"memory on one GPU, {images} image{'s' * (images > 1)} at a time; {usable(plan.gpu) / GB:.1f} GB are usable",
        *(f"  {name:<12}{num / GB:>8.1f} GB" for name, num in plan.asked.phases.items()),
        *([f"  on the host {plan.asked.locked / GB:>8.1f} GB"] if plan.asked.uses_host else []),
        f"fits: {'yes' if plan.fits else 'no'}{_advice(plan)}",
        "",
        f"time at {plan.efficiency.share:.0%} of the peak rate ({plan.efficiency.source})",
        f"  a step      {plan.seconds_per_step:>8.3g} s",
        *(f"  {name:<12}{hours:>8.3g} h" for name, hours in plan.hours.items() if hours),
        *([f"cost: {plan.cost:,.2f} at {plan.price:g} a GPU hour"] if plan.price else []),
        "",
        f"disk: {_cache(plan)}, {_checkpoints(plan) / 1e6:,.0f} MB of "
        f"checkpoints, {plan.disk['adapter'] / 1e6:,.0f} MB for the adapter",
        f"drawing {recipe.size}x{recipe.size} in {recipe.sample_steps} steps: {_drawing(plan.drawing)}",
        "",
        *_table(plan),
    ]
    return "\n".join(lines)


def as_json(plan: TrainingNeeds) -> dict[str, Any]:
    """The whole plan in JSON types: bytes, seconds, hours; None where no setting fits."""
    return {
        "model": plan.asked.recipe.model,
        "size": plan.asked.recipe.size,
        "gpu": {"name": plan.gpu.name, "gib": plan.gpu.memory, "tflops": plan.gpu.tflops},
        "num_gpus": plan.num_gpus,
        "fits": plan.fits,
        "asked": _option_json(plan.asked),
        "hours": plan.hours,
        "best": plan.best and {**_option_json(plan.best), "changes": plan.changes, "hours": plan.best_hours},
        "options": [_option_json(option) for option in plan.options],
        "efficiency": {"share": plan.efficiency.share, "source": plan.efficiency.source},
        "cost": plan.cost if plan.price else None,
        "disk_bytes": {**plan.disk, "all": plan.disk_bytes},
        "drawing": {
            "seconds": plan.drawing.seconds,
            "fits": plan.drawing.fits,
            "options": plan.drawing.options,
        },
    }


def _option_json(option: Option) -> dict[str, Any]:
    return {
        "settings": option.settings,
        "bytes": option.phases,
        "host_bytes": option.locked,
        "fits": option.fits,
        "seconds_per_step": option.seconds,
    }


def in_short(plan: TrainingNeeds) -> str:
    """What the best way comes to, in one line: hours, settings, memory of the host, disk and money."""
    if plan.best is None:
        return "in short: does not fit with any setting"
    settings = " ".join(f"{key}={value}" for key, value in plan.changes.items())
    money = plan.best_hours * plan.num_gpus * plan.price
    parts = [
        f"{duration(plan.best_hours)} with {settings or 'the recipe as it is'}",
        *([f"{plan.best.locked / GB:.0f} GB of host memory"] if plan.best.uses_host else []),
        *([f"{_size(plan.disk_bytes)} of disk for {plan.num_images:,} images"] if plan.num_images else []),
        *([f"{money:,.2f} at {plan.price:g} a GPU hour"] if plan.price else []),
    ]
    return f"in short: {', '.join(parts)}"


def _size(num_bytes: float) -> str:
    return f"{num_bytes / GB:,.0f} GB" if num_bytes >= 10 * GB else f"{num_bytes / GB:.2g} GB"


def _cache(plan: TrainingNeeds) -> str:
    one = f"{plan.disk['cache'] / 1e6:.2f} MB of cache an image"
    whole = plan.num_images * plan.disk["cache"]
    return f"{one} ({_size(whole)} for {plan.num_images:,})" if whole else one


def _drawing(needs: DrawingNeeds) -> str:
    where = str(needs.memory).partition(" on ")[0]
    vae = "" if needs.memory.decode == "whole" else f", VAE in {needs.memory.decode}"
    option = f" with {needs.options}" if needs.options else ""
    fits = "" if needs.fits else ", which does not fit"
    return f"about {needs.seconds:,.0f} s a picture, {where}{vae}{option}{fits}"


def refusal(plan: TrainingNeeds) -> str:
    """Why a run that does not fit is not begun, and what would make it fit; one sentence."""
    if plan.asked.num_bytes <= usable(plan.gpu):
        return (
            f"the run needs {plan.asked.locked / GB:.1f} GB of the host's memory and there are "
            f"{plan.host_memory / GB:.1f} GB{_advice(plan)}"
        )
    needed, there = plan.asked.num_bytes / GB, usable(plan.gpu) / GB
    phase = max(plan.asked.phases, key=lambda name: plan.asked.phases[name])
    return f"the run needs {needed:.1f} GB for {phase} and {plan.gpu.name} has {there:.1f} GB{_advice(plan)}"


def _advice(plan: TrainingNeeds) -> str:
    settings = " ".join(f"{key}={value}" for key, value in plan.changes.items())
    if plan.best is None:
        with_host = min((option.locked for option in plan.options if _lacks_host(plan, option)), default=0)
        return (
            f"; no setting makes it fit. It fits on {', '.join(plan.roomy()) or 'no single GPU known here'}"
            + (f", or here with {with_host / GB:.0f} GB of the host's memory" if with_host else "")
        )
    if not plan.fits:
        return f"; it would with {settings}"
    if settings and plan.best.seconds < 0.99 * plan.seconds_per_step:
        return f"; faster with {settings}"
    return ""


def _lacks_host(plan: TrainingNeeds, option: Option) -> bool:
    return option.num_bytes <= usable(plan.gpu) and option.locked > plan.host_memory


def _checkpoints(plan: TrainingNeeds) -> int:
    # One more while the next is written and the oldest not yet removed.
    return (plan.asked.recipe.keep_checkpoints + 1) * plan.disk["checkpoint"]


def _table(plan: TrainingNeeds) -> list[str]:
    return [
        "gradient_checkpointing  images at a time  memory      a step",
        *(_row(plan, option) for option in plan.options if _is_shown(plan, option)),
    ]


def _is_shown(plan: TrainingNeeds, option: Option) -> bool:
    """All ways to keep activations on the GPU; those that use the host's memory where nothing else fits, and those
    that fit with the base in fewer bits beside them."""
    best = plan.best
    if option.uses_host and not (best is not None and best.uses_host):
        return False
    if option.uses_host or _is_rounded_more(plan, option):
        return option.fits and best is not None and option.recipe.sample_every == best.recipe.sample_every
    return option.recipe.sample_every == plan.asked.recipe.sample_every


def _is_rounded_more(plan: TrainingNeeds, option: Option) -> bool:
    return option.recipe.base_weights != plan.asked.recipe.base_weights


def _row(plan: TrainingNeeds, option: Option) -> str:
    mode = option.settings["gradient_checkpointing"]
    images = option.recipe.images_at_a_time(plan.num_gpus)
    notes = [
        *([f"base_weights={option.recipe.base_weights}"] if _is_rounded_more(plan, option) else []),
        *(["offload_activations"] if option.recipe.offload_activations else []),
        *([f"swap_blocks={option.recipe.swap_blocks}"] if option.recipe.swap_blocks else []),
        *([f"({option.locked / GB:.0f} GB on the host)"] if option.uses_host else []),
        *(["does not fit"] if not option.fits else []),
    ]
    numbers = f"{images:>16}{option.num_bytes / GB:>9.1f} GB{option.seconds:>9.3g} s"
    return f"{mode:<24}{numbers}  {' '.join(notes)}".rstrip()

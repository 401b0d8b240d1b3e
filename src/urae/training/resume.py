"""When a run may go on from a checkpoint: only if it is the same run.

Everything on which the result depends is compared, by content rather than by path: the recipe without the
keys that only say how the run is watched, split or computed, the cached data, the base's weights, the adapter
it starts from. So a run that was begun on eight GPUs goes on on one, in smaller parts and with less memory.
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

from urae.adapters.attaching import PACKAGES
from urae.training.checkpoint import Checkpoint
from urae.training.recipe import Recipe
from urae.training.settings import to_dict

__all__ = ["check_same_run", "run_identity", "started_as"]

NO_EFFECT = (
    *("model", "data", "cache", "start", "out"),  # compared by content, or no part of the run
    *("steps", "num_workers", "checkpoint_every", "checkpoint_minutes", "keep_checkpoints", "loggers"),
    *("validate_every", "sample_every", "sample_prompts", "sample_steps", "sample_guidance"),
    *("gradient_accumulation", "gradient_checkpointing", "compile"),  # sums in another order, no more
    *("offload_activations", "swap_blocks", "context_parallel"),
)
"""Keys that leave each step's result as it is. `steps` is one: a run may be made longer."""


NEWER = ("caption_dropout", "trigger")
"""Keys that do nothing where they are not set."""


def run_identity(recipe: Recipe, *, data: str, base: str, start: str) -> dict[str, Any]:
    """What the trained bits depend on, in types that JSON has. data, base and start are hashes of the cache,
    of the weights, and of the adapter that the run starts from."""
    settings = {name: value for name, value in to_dict(recipe).items() if name not in NO_EFFECT}
    # Checkpoints from before these keys lack them.
    settings = {name: value for name, value in settings.items() if value or name not in NEWER}
    return {**settings, "data": data, "base": base, "start": start}


def started_as(recipe: Recipe) -> dict[str, Any]:
    """What every process of a run must have been started with: all settings, and the versions of what computes."""
    return _flat(to_dict(recipe)) | {name: version(name) for name in PACKAGES}


def check_same_run(checkpoint: Checkpoint, identity: dict[str, Any], recipe: Recipe) -> None:
    """Raise `ValueError`, naming what differs, unless the checkpoint is this run's and not beyond its end."""
    kept = {key: value for key, value in checkpoint.state["identity"].items() if _has_effect(key, identity)}
    there, here = _flat(kept), _flat(identity)
    differing = [
        f"{key} is {there.get(key, 'absent')!r} there and {here.get(key, 'absent')!r} here"
        for key in sorted(there.keys() | here.keys())
        if there.get(key) != here.get(key)
    ]
    if checkpoint.step > recipe.steps:
        differing.append(f"it has done {checkpoint.step} steps and {recipe.steps} are asked for")
    if differing:
        raise ValueError(
            f"{recipe.out} holds a checkpoint of another run: {'; '.join(differing)}. Choose another out, or "
            f"delete {Path(recipe.out) / 'checkpoints'} to start anew"
        )


def _has_effect(key: str, identity: dict[str, Any]) -> bool:
    return key in identity or key not in NO_EFFECT


def _flat(values: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= (
            {f"{key}.{inner}": part for inner, part in value.items()}
            if isinstance(value, dict)
            else {key: value}
        )
    return flat

"""What a recipe comes to with one pipeline on this machine: everything that decides the result, decided once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import ProjectConfiguration
from torch import Tensor

from urae.adapters import Adapter
from urae.adapters.base import base_of
from urae.adapters.targets import resolved, transformer_of
from urae.data import CAPTION_KINDS, CachedDataset, cached_dataset, check_data, split_mix
from urae.execution import (
    agree,
    check_can_multiply,
    decide_to_compile,
    in_all,
    on_main,
    text_encoders_placed,
    this_process,
)
from urae.families import check_transformer, family_of
from urae.resolution import ResolutionPolicy, check_size, native_size, size_scale
from urae.training.checkpoint import Checkpoint, latest_checkpoint, load_checkpoint, of_main
from urae.training.metrics import check_loggers
from urae.training.recipe import Recipe
from urae.training.resume import check_same_run, run_identity, started_as
from urae.training.sigma import NEARLY_NOISE, share_above, shift_at

__all__ = ["TrainingPlan", "check_inputs", "plan_training"]


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """A training run with one pipeline. As text it is what a user is told before it begins; two are equal where they
    train the same, from the same step on."""

    pipe: Any = field(repr=False, compare=False)
    accelerator: Accelerator = field(repr=False, compare=False)
    recipe: Recipe
    """As asked, with its policy and its adapter's targets in full."""
    start: Adapter | None = field(repr=False, compare=False)
    """What is part of the base from the start on."""
    data: CachedDataset = field(repr=False, compare=False)
    """All of it."""
    train_on: CachedDataset = field(repr=False, compare=False)
    held_out: CachedDataset = field(repr=False, compare=False)
    """For the validation loss."""
    num_images: int
    """On a device at a time."""
    shift: float
    """Of the noise level, at the recipe's size."""
    compiling: str
    """Whether the blocks are compiled, and why, where that was left to the plan."""
    identity: Mapping[str, Any]
    """What a checkpoint must share with a run that goes on from it: settings, and hashes of data, base and start."""
    checkpoint: Checkpoint | None = field(repr=False, compare=False)
    """To go on from; None for a run from the beginning."""
    done: int
    """Steps before this run."""

    def __str__(self) -> str:
        recipe, entries = self.recipe, self.train_on.entries
        both = sum(len(entry.record.captions) == len(CAPTION_KINDS) for entry in entries)
        share = share_above(NEARLY_NOISE, distribution=recipe.sigma_sampling, shift=self.shift)
        lines = [
            f"{len(entries)} images at {recipe.size} px, {both} of them with two captions",
            f"sigma {recipe.sigma_sampling} with shift {self.shift:g}: {share:.1%} of the draws above {NEARLY_NOISE}",
            *([self.compiling] if self.compiling else []),
            *([f"going on after step {self.done}"] if self.done else []),
        ]
        return "\n".join(lines)

    @property
    def policy(self) -> ResolutionPolicy:
        """How the model runs, in training and ever after."""
        assert isinstance(self.recipe.policy, ResolutionPolicy)
        return self.recipe.policy


def check_inputs(recipe: Recipe) -> None:
    """Raise for what a run reads and cannot use, as far as that shows before its model is loaded: a teacher that is not
    there, and everything that is wrong with the data."""
    if recipe.distill_weight and recipe.teacher != "base":
        check_transformer(recipe.teacher, like=recipe.model)
    sources = [source for source, _ in split_mix(recipe.data)]
    on_main(lambda: check_data(sources, size=recipe.size, captioned=not recipe.trigger))


def plan_training(pipe: Any, recipe: Recipe) -> TrainingPlan:
    """Decide how a stock pipeline is trained by a recipe. Data that is not cached yet is cached here, since what goes
    on depends on what it holds; the pipeline itself is left as it is. Errors are those of `train` before it trains."""
    check_loggers(recipe.loggers)
    accelerator = _accelerator(recipe)
    agree(started_as(recipe))
    spec = resolved(recipe.adapter, transformer_of(pipe))
    asked, recipe = recipe, replace(recipe, policy=_policy(pipe, recipe), adapter=spec)
    num_images = recipe.images_at_a_time(accelerator.num_processes)
    compiles, why = _compiling(pipe, recipe, accelerator, num_images=num_images)
    recipe = replace(recipe, compile=compiles)
    in_all(lambda: check_fit(pipe, recipe, accelerator.device, num_images=num_images))
    start = in_all(lambda: Adapter.load(recipe.start, base=pipe) if recipe.start else None)
    data = cached_dataset(
        pipe,
        recipe.data,
        size=recipe.size,
        scenes=Path(recipe.out) / "data",
        device=accelerator.device,
        folder=recipe.cache,
        trigger=recipe.trigger,
    )
    if recipe.caption_dropout:
        data = replace(data, empty=_empty(pipe, accelerator.device))
    train_on, held_out = data.split(recipe.num_validation)
    identity = _identity(pipe, recipe, data, start)
    agree({name: identity[name] for name in ("data", "base", "start")})
    checkpoint = of_main(lambda: _checkpoint(recipe, identity))
    return TrainingPlan(
        pipe=pipe,
        accelerator=accelerator,
        recipe=recipe,
        start=start,
        data=data,
        train_on=train_on,
        held_out=held_out,
        num_images=num_images,
        shift=_shift(pipe, recipe),
        compiling="" if asked.compile != "auto" else f"blocks {'compiled' if compiles else 'eager'}: {why}",
        identity=identity,
        checkpoint=checkpoint,
        done=checkpoint.step if checkpoint else 0,
    )


def _empty(pipe: Any, device: torch.device) -> dict[str, Tensor]:
    """The embeddings of the empty caption, as a cache has those of others."""
    with text_encoders_placed(pipe, device):
        embeddings = family_of(pipe).text.encode(pipe, [""])
    return {name: tensor[0].cpu() for name, tensor in embeddings.items()}


def _accelerator(recipe: Recipe) -> Accelerator:
    folders = ProjectConfiguration(project_dir=recipe.out, logging_dir=str(Path(recipe.out) / "tensorboard"))
    this_process()  # which settles how processes talk where there is no accelerator
    return Accelerator(log_with=list(recipe.loggers) or None, project_config=folders)


def _policy(pipe: Any, recipe: Recipe) -> ResolutionPolicy:
    if isinstance(recipe.policy, ResolutionPolicy):
        return recipe.policy
    makers = {
        "for_size": lambda: ResolutionPolicy.for_size(pipe, recipe.size),
        "reference": ResolutionPolicy.reference,
        "native": lambda: ResolutionPolicy.for_size(pipe, native_size(pipe)),
    }
    return makers[recipe.policy]()


def _compiling(pipe: Any, recipe: Recipe, accelerator: Accelerator, *, num_images: int) -> tuple[bool, str]:
    """By the steps of the whole run, so that one that goes on decides as it did before."""
    if recipe.compile != "auto":
        return recipe.compile, ""
    return decide_to_compile(
        pipe,
        check_size(recipe.size),
        "auto",
        calls=recipe.steps * recipe.gradient_accumulation * num_images,
        device=accelerator.device.type,
        obstacle=recipe.not_compiled_since.partition(":")[0],
        training=True,
    )


def check_fit(pipe: Any, recipe: Recipe, device: torch.device, *, num_images: int) -> None:
    """Refuse, before anything is cached or decomposed, what this pipeline or device cannot do; the policy is resolved,
    and `num_images` are on a device at a time."""
    if recipe.policy.rope.startswith("dype") and num_images > 1:  # type: ignore[union-attr]
        raise ValueError(
            f"policy.rope {recipe.policy.rope!r} needs one noise level per call of the model, and images differ in "  # type: ignore[union-attr]
            f"theirs: set gradient_accumulation={num_images * recipe.gradient_accumulation}, one image per part"
        )
    if recipe.base_dtype == "fp32" and pipe.transformer.dtype != torch.float32:
        raise ValueError(
            f"base_dtype is fp32 but the transformer was loaded as {pipe.transformer.dtype}: "
            "load it with dtype=torch.float32, or set base_dtype=bf16"
        )
    # With `swap_blocks` the matrices themselves stay on the host.
    check_can_multiply(recipe.base_weights, device)
    for name, off in (("offload_activations", "false"), ("swap_blocks", "0")):
        if getattr(recipe, name) and device.type == "cpu":
            raise ValueError(
                f"{name} moves what a GPU has no room for to the host's memory, and this run is on a CPU, where that "
                f"has no effect: set {name}={off}"
            )


def _shift(pipe: Any, recipe: Recipe) -> float:
    return shift_at(
        size_scale(pipe, recipe.size),
        shift=recipe.sigma_shift,
        rule=recipe.sigma_shift_rule,
        distribution=recipe.sigma_sampling,
    )


def _identity(pipe: Any, recipe: Recipe, data: CachedDataset, start: Adapter | None) -> dict[str, Any]:
    base = base_of(pipe.transformer)
    return run_identity(
        recipe,
        data=data.digest,
        base=f"{base.config} {base.weights} {pipe.transformer.dtype}",
        start=start.hash if start else "",
    )


def _checkpoint(recipe: Recipe, identity: dict[str, Any]) -> Checkpoint | None:
    """The checkpoint to go on from; a `ValueError` if there is one and it is another run's."""
    latest = latest_checkpoint(Path(recipe.out) / "checkpoints")
    if latest is None:
        return None
    checkpoint = load_checkpoint(latest)
    check_same_run(checkpoint, identity, recipe)
    return checkpoint

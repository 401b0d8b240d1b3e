"""`train`: from a stock pipeline and a recipe to an adapter, and a directory that says how it came about.

    recipe.yaml            the recipe, its policy resolved; `urae train that/recipe.yaml` repeats the run
    metrics.jsonl          a line a step
    samples/               images while it trains, each beside the base's
    checkpoints/           step-000200/, ...; the run goes on from the latest
    adapter.safetensors    the result

The pipeline is as it was before when `train` returns or raises: weights to the bit, scheduler, devices.
"""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from urae.adapters import Adapter, Attached, attach
from urae.data.sources import public_name
from urae.errors import Stopped
from urae.execution import (
    Carrier,
    HostCheckpointing,
    TokenSharing,
    attention_for_training,
    compiled_blocks,
    context_group,
    context_parallel,
    from_main_,
    frozen_base_placed,
    gradient_checkpointing,
    in_all,
    on_main,
    placed,
    share,
    text_encoders_placed,
)
from urae.families import family_of, open_transformer
from urae.io import Journal, locked, telling
from urae.resolution import num_tokens
from urae.training.checkpoint import latest_checkpoint
from urae.training.loop import Loop, Setting
from urae.training.metrics import start_trackers
from urae.training.plan import TrainingPlan, plan_training
from urae.training.prediction import Predictor, predictor
from urae.training.recipe import Recipe
from urae.training.report import write_report
from urae.training.samples import Sampler, has_negative, lean_pipeline
from urae.training.settings import save_recipe, to_dict
from urae.training.step import Objective
from urae.training.teacher import Teacher, base_teacher, other_teacher

__all__ = ["run_training", "train"]


def train(pipe: Any, recipe: Recipe) -> Adapter:
    """Train the recipe's adapter on a stock pipeline, and write everything into the recipe's directory `out`.

    Data that is not cached yet is cached first. If `out` holds a checkpoint of the same run, the run goes on
    from it, to the same bits as if it had never stopped; a checkpoint of another run is a `ValueError` that
    says what differs. Under `torchrun` or `accelerate launch` the processes share each batch. Raises `TrainingDiverged`
    when the loss becomes NaN or infinite, `MissingExtra` for a logger that is not installed, `StaleCache` for
    a foreign cache, `UraeError` while another process trains into the directory, and `Stopped`, with a checkpoint, when
    a signal asks for the end. `plan_training` gives the plan that this runs, to look at first.
    """
    plan = plan_training(pipe, recipe)
    if plan.accelerator.is_main_process:
        Console(stderr=True, highlight=False, soft_wrap=True, markup=False).print(str(plan))
    return run_training(plan)


def run_training(plan: TrainingPlan) -> Adapter:
    """Train from the plan's checkpoint, or from the beginning, to the last step, and write the adapter. `ValueError`
    where a run has gone further since it was planned."""
    with ExitStack() as stack:
        on_main(lambda: stack.enter_context(_alone(Path(plan.recipe.out))))
        on_main(lambda: _check_current(plan))
        try:
            adapter = _saved(_trained(plan), plan)
        except Stopped:
            _report(plan)
            raise
        _report(plan)
        return adapter


def _report(plan: TrainingPlan) -> None:
    on_main(lambda: write_report(Path(plan.recipe.out), plan=str(plan)))


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Keep other runs out of the directory. What trackers cannot write is a `CannotWrite` too."""
    with locked(out / "lock", what=out), telling(out, out):
        yield


def _trained(plan: TrainingPlan) -> Adapter:
    with _in_place(plan) as model, _loop(plan, model) as loop:
        if plan.checkpoint:
            loop.load(plan.checkpoint)
        loop.run()
        with loop.result():
            return model.attached.export(
                policy=plan.policy, recipe=_stored(plan.recipe), data=_provenance(plan)
            )


def _check_current(plan: TrainingPlan) -> None:
    folder = Path(plan.recipe.out) / "checkpoints"
    latest = latest_checkpoint(folder)
    if latest is not None and (plan.checkpoint is None or latest.name != f"step-{plan.done:06d}"):
        raise ValueError(
            f"the run is planned to go on after step {plan.done}, and {latest} has been written since: plan it again"
        )


# --- in place, and put back ----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Trainable:
    """The model with all in place that its steps run with."""

    attached: Attached
    lean: Any
    """The pipeline without its text encoders."""
    group: Any
    """Of processes that share the tokens of each image; None for one alone."""
    sharing: TokenSharing
    attention: str
    """Name of the kernel that was chosen; "" where torch chooses."""


@contextmanager
def _in_place(plan: TrainingPlan) -> Iterator[Trainable]:
    pipe, recipe = plan.pipe, plan.recipe
    lean, group = lean_pipeline(pipe), context_group(recipe.context_parallel)
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        # Under bf16 the norms of a base that was loaded in fp32 take a path that torch calls slower, once.
        warnings.filterwarnings("ignore", message="Mismatch dtype between input and weight")
        attached = stack.enter_context(_attached(plan))
        stack.enter_context(plan.policy.on(lean))
        sharing = stack.enter_context(context_parallel(pipe.transformer, group))
        attention = stack.enter_context(_attention(plan))
        stack.enter_context(compiled_blocks(pipe.transformer, recipe.compile is True))
        stack.enter_context(_checkpointing(plan))
        yield Trainable(attached=attached, lean=lean, group=group, sharing=sharing, attention=attention)


@contextmanager
def _loop(plan: TrainingPlan, model: Trainable) -> Iterator[Loop]:
    with (
        _objective(plan, model) as objective,
        _sampler(plan, model) as sampler,
        _metrics(plan) as metrics,
    ):
        yield Loop(
            Setting(
                recipe=plan.recipe,
                accelerator=plan.accelerator,
                attached=model.attached,
                objective=objective,
                data=plan.train_on,
                held_out=plan.held_out,
                sampler=sampler,
                metrics=metrics,
                identity=dict(plan.identity),
                attention=model.attention,
            )
        )


@contextmanager
def _attached(plan: TrainingPlan) -> Iterator[Attached]:
    recipe, transformer, device = plan.recipe, plan.pipe.transformer, plan.accelerator.device
    with ExitStack() as stack:
        if recipe.base_weights == "as_loaded" and not recipe.swap_blocks:
            stack.enter_context(placed(transformer, device))
        stack.enter_context(torch.random.fork_rng(devices=[]))
        torch.default_generator.manual_seed(recipe.seed)  # a Lora starts from random numbers
        cache = Path(recipe.out) / "decomposition"
        attached = attach(transformer, recipe.adapter, start=plan.start, cache=cache, device=device)
        stack.callback(attached.detach)
        stack.enter_context(
            frozen_base_placed(
                transformer, device, weights=recipe.base_weights, num_swapped=recipe.swap_blocks
            )
        )
        # A decomposition on another machine may differ in its last bits.
        from_main_(attached.state_dict().values())
        yield attached


def _attention(plan: TrainingPlan) -> AbstractContextManager[str]:
    return attention_for_training(
        plan.pipe.transformer,
        plan.accelerator.device,
        num_tokens=num_tokens(plan.pipe, plan.recipe.size),
        num_images=plan.num_images,
        checkpointing=plan.recipe.gradient_checkpointing,
    )


def _checkpointing(plan: TrainingPlan) -> AbstractContextManager[None]:
    recipe = plan.recipe
    return gradient_checkpointing(
        plan.pipe.transformer,
        recipe.gradient_checkpointing,
        compiled=recipe.compile is True,
        offload=HostCheckpointing(Carrier(plan.accelerator.device)) if recipe.offload_activations else None,
    )


@contextmanager
def _objective(plan: TrainingPlan, model: Trainable) -> Iterator[Objective]:
    recipe, transformer = plan.recipe, plan.pipe.transformer
    with _teacher(plan, model) as teacher:
        yield Objective(
            recipe=recipe,
            accelerator=plan.accelerator,
            student=_predictor(plan, transformer, recipe.guidance),
            teacher=teacher,
            shift=plan.shift,
        )


@contextmanager
def _teacher(plan: TrainingPlan, model: Trainable) -> Iterator[Teacher | None]:
    """None where the recipe distils nothing."""
    recipe = plan.recipe
    if not recipe.distill_weight:
        yield None
    elif recipe.teacher == "base":
        predict = _predictor(plan, plan.pipe.transformer, recipe.teacher_guidance)
        yield base_teacher(predict, model.attached.parameters())
    else:
        other = open_transformer(plan.pipe, recipe.teacher).to(plan.accelerator.device)
        with plan.policy.on(other), context_parallel(other, model.group):
            yield other_teacher(_predictor(plan, other, recipe.teacher_guidance))


def _predictor(plan: TrainingPlan, transformer: Any, guidance: float) -> Predictor:
    return predictor(family_of(plan.pipe), transformer, guidance=guidance, base_dtype=plan.recipe.base_dtype)


@contextmanager
def _sampler(plan: TrainingPlan, model: Trainable) -> Iterator[Sampler | None]:
    """The sampler, with the base's images drawn; None in a run without samples."""
    pipe, recipe, device = plan.pipe, plan.recipe, plan.accelerator.device
    if not recipe.sample_every:
        yield None
        return
    places = share(range(len(recipe.sample_prompts)))  # none where there are more processes than prompts
    with text_encoders_placed(pipe, device) if places else nullcontext():
        text = family_of(pipe).text
        embeddings = text.encode(pipe, list(recipe.shown_prompts)) if places else {}
        # Of the empty prompt, from here on without encoders.
        negative = text.encode(pipe, [""]) if places and has_negative(pipe, recipe) else ""
    with placed(pipe.vae, device) if places else nullcontext():
        sampler = Sampler(
            model.lean,
            recipe,
            places=places,
            embeddings=embeddings,
            negative=negative,
            identity=plan.identity,
            sharing=model.sharing,
        )
        in_all(sampler.draw_base)
        yield sampler


@contextmanager
def _metrics(plan: TrainingPlan) -> Iterator[Journal | None]:
    """The run's records, open from where the checkpoint was; None beside the main process."""
    out, accelerator = Path(plan.recipe.out), plan.accelerator
    start_trackers(accelerator, plan.recipe, step=plan.done)
    length = plan.checkpoint.state["metrics"] if plan.checkpoint else 0
    try:
        if accelerator.is_main_process:
            save_recipe(plan.recipe, out / "recipe.yaml")
            with Journal(out / "metrics.jsonl", start=length, sync=False) as metrics:
                yield metrics
        else:
            yield None
    finally:
        for tracker in accelerator.trackers:
            tracker.finish()


# --- the result ---------------------------------------------------------------------------------------------


def _stored(recipe: Recipe) -> dict[str, Any]:
    """The recipe as the adapter keeps it. Where the run wrote its files, and at what time, is no part of the result."""
    values = {
        name: value
        for name, value in to_dict(recipe).items()
        if name not in ("out", "cache", "checkpoint_minutes")
    }
    named = {name: _public(values[name]) for name in ("model", "start", "teacher")}
    return values | named | {"data": public_name(recipe.data)}


def _public(name: str) -> str:
    # An adapter travels, and the folders of the machine that made it are nobody's business.
    return Path(name).name if Path(name).is_absolute() else os.path.normpath(name) if name else ""


def _provenance(plan: TrainingPlan) -> dict[str, Any]:
    sources = Counter(entry.record.source for entry in plan.data.entries)
    return {
        "source": public_name(plan.recipe.data),
        "digest": plan.data.digest,
        "records": len(plan.data.entries),
        "held_out": len(plan.held_out),
        "sources": dict(sorted(sources.items())),
    }


def _saved(adapter: Adapter, plan: TrainingPlan) -> Adapter:
    # Without the time of day, the same run writes the same bytes.
    adapter = replace(adapter, created="")
    if plan.accelerator.is_main_process:
        adapter.save(Path(plan.recipe.out) / "adapter.safetensors")
    plan.accelerator.wait_for_everyone()
    return adapter

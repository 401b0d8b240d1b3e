"""`train`: from a stock pipeline and a recipe to an adapter, and a directory that says how it came about.

    recipe.yaml            the recipe, its policy resolved; `urae train that/recipe.yaml` repeats the run
    metrics.jsonl          a line a step
    samples/               images while it trains, each beside the base's
    checkpoints/           step-000200/, ...; the run goes on from the latest
    adapter.safetensors    the result

The pipeline is as it was before when `train` returns or raises: weights to the bit, scheduler, devices.
"""

from __future__ import annotations

import json
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import ProjectConfiguration
from rich.console import Console

from urae.adapters import Adapter, Attached, attach
from urae.adapters.targets import resolved, transformer_of
from urae.data import CAPTION_KINDS, CachedDataset, Entry, cached_dataset
from urae.execution import (
    Carrier,
    HostCheckpointing,
    TokenSharing,
    attention_for_training,
    check_can_multiply,
    compiled_blocks,
    context_group,
    context_parallel,
    frozen_base_placed,
    gradient_checkpointing,
    num_groups,
    on_main,
    placed,
    text_encoders_placed,
    this_process,
)
from urae.families import family_of, open_transformer
from urae.io import Journal, locked, remove_leftovers, telling
from urae.resolution import ResolutionPolicy, native_size, num_tokens, size_scale
from urae.training.checkpoint import Checkpoint, latest_checkpoint, load_checkpoint
from urae.training.loop import Loop, Setting
from urae.training.metrics import check_loggers, start_trackers
from urae.training.prediction import Predictor, predictor
from urae.training.recipe import Recipe
from urae.training.resume import check_same_run, run_identity
from urae.training.samples import Sampler, lean_pipeline
from urae.training.settings import save_recipe, to_dict
from urae.training.sigma import NEARLY_NOISE, share_above, shift_at
from urae.training.step import Objective
from urae.training.teacher import Teacher, base_teacher, other_teacher

__all__ = ["train"]


def train(pipe: Any, recipe: Recipe) -> Adapter:
    """Train the recipe's adapter on a stock pipeline, and write everything into the recipe's directory `out`.

    Data that is not cached yet is cached first. If `out` holds a checkpoint of the same run, the run goes on
    from it, to the same bits as if it had never stopped; a checkpoint of another run is a `ValueError` that
    says what differs. Under `torchrun` or `accelerate launch` the processes share each batch. Raises `TrainingDiverged`
    when the loss becomes NaN or infinite, `MissingExtra` for a logger that is not installed, `StaleCache` for
    a foreign cache, `UraeError` while another process trains into the directory, and `Stopped`, with a checkpoint, when
    a signal asks for the end.
    """
    check_loggers(recipe.loggers)
    accelerator = _accelerator(recipe)
    policy = _policy(pipe, recipe)
    spec = resolved(recipe.adapter, transformer_of(pipe))
    recipe = replace(recipe, policy=policy, adapter=spec)
    _check_fit(pipe, recipe, policy, accelerator)
    start = Adapter.load(recipe.start, base=pipe) if recipe.start else None
    with ExitStack() as stack:
        on_main(lambda: stack.enter_context(_alone(Path(recipe.out))))
        return _saved(_trained(pipe, recipe, policy, accelerator, start), recipe, accelerator)


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Keep other runs out of the directory, and remove what killed ones did not finish. What trackers cannot write is a
    `CannotWrite` too."""
    with locked(out / "lock", what=out), telling(out, out):
        for folder in (out, out / "checkpoints", out / "samples"):
            remove_leftovers(folder)
        yield


def _trained(
    pipe: Any, recipe: Recipe, policy: ResolutionPolicy, accelerator: Accelerator, start: Adapter | None
) -> Adapter:
    data = cached_dataset(
        pipe, recipe.data, size=recipe.size, scenes=Path(recipe.out) / "data", device=accelerator.device
    )
    train_on, held_out = data.split(recipe.num_validation)
    lean = lean_pipeline(pipe)
    group = context_group(recipe.context_parallel)
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        # Under bf16 the norms of a base that was loaded in fp32 take a path that torch calls slower, once.
        warnings.filterwarnings("ignore", message="Mismatch dtype between input and weight")
        attached = stack.enter_context(_attached(pipe, recipe, accelerator, start))
        stack.enter_context(policy.on(lean))
        sharing = stack.enter_context(context_parallel(pipe.transformer, group))
        kernel = stack.enter_context(_attention(pipe, recipe, accelerator))
        stack.enter_context(compiled_blocks(pipe.transformer, recipe.compile))
        stack.enter_context(_checkpointing(pipe, recipe, accelerator.device))
        identity = _identity(pipe, recipe, attached, data)
        checkpoint = _checkpoint(recipe, identity)
        loop = Loop(
            Setting(
                recipe=recipe,
                accelerator=accelerator,
                attached=attached,
                objective=stack.enter_context(_objective(pipe, recipe, policy, accelerator, attached, group)),
                data=train_on,
                held_out=held_out,
                sampler=stack.enter_context(_sampler(pipe, lean, recipe, accelerator, identity, sharing)),
                metrics=stack.enter_context(_metrics(recipe, accelerator, checkpoint)),
                identity=identity,
                sharing=sharing,
                attention=kernel,
            )
        )
        if checkpoint:
            loop.load(checkpoint)
        if accelerator.is_main_process:
            _announce(recipe, train_on.entries, shift=_sigma_shift(pipe, recipe), done=loop.step)
        loop.run()
        with loop.result():
            return attached.export(
                policy=policy, recipe=_stored(recipe), data=_provenance(recipe, data, len(held_out))
            )


def _announce(recipe: Recipe, entries: Sequence[Entry], *, shift: float, done: int) -> None:
    """What will be trained on, before it is: the images, and the noise levels that they are shown at."""
    both = sum(len(entry.record.captions) == len(CAPTION_KINDS) for entry in entries)
    share = share_above(NEARLY_NOISE, distribution=recipe.sigma_sampling, shift=shift)
    lines = [
        f"{len(entries)} images at {recipe.size} px, {both} of them with two captions",
        f"sigma {recipe.sigma_sampling} with shift {shift:g}: {share:.1%} of the draws above {NEARLY_NOISE}",
        *([f"going on after step {done}"] if done else []),
    ]
    Console(stderr=True, highlight=False, soft_wrap=True).print("\n".join(lines))


# --- before the loop ----------------------------------------------------------------------------------------


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


def _check_fit(pipe: Any, recipe: Recipe, policy: ResolutionPolicy, accelerator: Accelerator) -> None:
    groups = num_groups(accelerator.num_processes, recipe.context_parallel)
    parts = groups * recipe.gradient_accumulation
    if recipe.batch_size % parts:
        what = (
            "processes" if recipe.context_parallel == 1 else f"groups of {recipe.context_parallel} processes"
        )
        raise ValueError(
            f"batch_size is {recipe.batch_size}: expected a multiple of {what} x gradient_accumulation = {parts}"
        )
    if policy.rope.startswith("dype") and recipe.batch_size > parts:
        raise ValueError(
            f"policy.rope {policy.rope!r} needs one noise level a call of the model, and images differ in theirs: "
            f"set gradient_accumulation={recipe.batch_size // groups}, one image a part"
        )
    if recipe.base_dtype == "fp32" and pipe.transformer.dtype != torch.float32:
        raise ValueError(
            f"base_dtype is fp32 but the transformer was loaded as {pipe.transformer.dtype}: "
            "load it with torch_dtype=torch.float32, or set base_dtype=bf16"
        )
    # Before anything is cached or decomposed; with `swap_blocks` the matrices themselves stay on the host.
    check_can_multiply(recipe.base_weights, accelerator.device)
    for name, off in (("offload_activations", "false"), ("swap_blocks", "0")):
        if getattr(recipe, name) and accelerator.device.type == "cpu":
            raise ValueError(
                f"{name} moves what a GPU has no room for to the host's memory, and this run is on a CPU, where that "
                f"has no effect: set {name}={off}"
            )


@contextmanager
def _attached(
    pipe: Any, recipe: Recipe, accelerator: Accelerator, start: Adapter | None
) -> Iterator[Attached]:
    transformer, device = pipe.transformer, accelerator.device
    with ExitStack() as stack:
        if recipe.base_weights == "as_loaded" and not recipe.swap_blocks:
            stack.enter_context(placed(transformer, device))
        stack.enter_context(torch.random.fork_rng(devices=[]))
        torch.default_generator.manual_seed(recipe.seed)  # a Lora starts from random numbers
        cache = Path(recipe.out) / "decomposition"
        attached = attach(transformer, recipe.adapter, start=start, cache=cache, device=device)
        stack.callback(attached.detach)
        stack.enter_context(
            frozen_base_placed(
                transformer, device, weights=recipe.base_weights, num_swapped=recipe.swap_blocks
            )
        )
        yield attached


def _attention(pipe: Any, recipe: Recipe, accelerator: Accelerator) -> AbstractContextManager[str]:
    groups = num_groups(accelerator.num_processes, recipe.context_parallel)
    return attention_for_training(
        pipe.transformer,
        accelerator.device,
        num_tokens=num_tokens(pipe, recipe.size),
        num_images=recipe.batch_size // groups // recipe.gradient_accumulation,
        checkpointing=recipe.gradient_checkpointing,
    )


def _checkpointing(pipe: Any, recipe: Recipe, device: torch.device) -> AbstractContextManager[None]:
    return gradient_checkpointing(
        pipe.transformer,
        recipe.gradient_checkpointing,
        compiled=recipe.compile,
        offload=HostCheckpointing(Carrier(device)) if recipe.offload_activations else None,
    )


@contextmanager
def _objective(
    pipe: Any,
    recipe: Recipe,
    policy: ResolutionPolicy,
    accelerator: Accelerator,
    attached: Attached,
    group: Any,
) -> Iterator[Objective]:
    def predict(transformer: Any, guidance: float) -> Predictor:
        return predictor(family_of(pipe), transformer, guidance=guidance, base_dtype=recipe.base_dtype)

    with ExitStack() as stack:
        teacher: Teacher | None = None
        if recipe.distill_weight and recipe.teacher == "base":
            teacher = base_teacher(predict(pipe.transformer, recipe.teacher_guidance), attached.parameters())
        elif recipe.distill_weight:
            other = open_transformer(pipe, recipe.teacher).to(accelerator.device)
            stack.enter_context(policy.on(other))
            stack.enter_context(context_parallel(other, group))
            teacher = other_teacher(predict(other, recipe.teacher_guidance))
        yield Objective(
            recipe=recipe,
            accelerator=accelerator,
            student=predict(pipe.transformer, recipe.guidance),
            teacher=teacher,
            shift=_sigma_shift(pipe, recipe),
        )


def _sigma_shift(pipe: Any, recipe: Recipe) -> float:
    return shift_at(
        size_scale(pipe, recipe.size),
        shift=recipe.sigma_shift,
        rule=recipe.sigma_shift_rule,
        distribution=recipe.sigma_sampling,
    )


@contextmanager
def _sampler(
    pipe: Any,
    lean: Any,
    recipe: Recipe,
    accelerator: Accelerator,
    identity: dict[str, Any],
    sharing: TokenSharing,
) -> Iterator[Sampler | None]:
    """The sampler, with the base's images drawn, in the main process of a run that wants samples."""
    if not (recipe.sample_every and accelerator.is_main_process):
        yield None
        return
    with text_encoders_placed(pipe, accelerator.device):
        text = family_of(pipe).text
        embeddings = text.encode(pipe, recipe.sample_prompts)
        # Of the empty prompt, from here on without encoders.
        negative = text.encode(pipe, [""]) if _has_negative(pipe, recipe) else ""
    with placed(pipe.vae, accelerator.device):
        base = json.dumps([identity[name] for name in ("base", "base_weights", "start", "policy")])
        sampler = Sampler(lean, recipe, embeddings=embeddings, negative=negative, base=base)
        with sharing.paused():  # this process draws alone
            sampler.draw_base()
        yield sampler


def _has_negative(pipe: Any, recipe: Recipe) -> bool:
    return recipe.sample_guidance > 1 and family_of(pipe).guidance.kind(pipe) == "cfg"


# --- going on -----------------------------------------------------------------------------------------------


def _identity(pipe: Any, recipe: Recipe, attached: Attached, data: CachedDataset) -> dict[str, Any]:
    return run_identity(
        recipe,
        data=data.digest,
        base=f"{attached.base.config} {attached.base.weights} {pipe.transformer.dtype}",
        start=attached.start.hash if attached.start else "",
    )


def _checkpoint(recipe: Recipe, identity: dict[str, Any]) -> Checkpoint | None:
    """The checkpoint to go on from; a `ValueError` if there is one and it is another run's."""
    latest = latest_checkpoint(Path(recipe.out) / "checkpoints")
    if latest is None:
        return None
    checkpoint = load_checkpoint(latest)
    check_same_run(checkpoint, identity, recipe)
    return checkpoint


@contextmanager
def _metrics(
    recipe: Recipe, accelerator: Accelerator, checkpoint: Checkpoint | None
) -> Iterator[Journal | None]:
    """The run's records, open from where the checkpoint was; None beside the main process."""
    step, length = (checkpoint.step, checkpoint.state["metrics"]) if checkpoint else (0, 0)
    start_trackers(accelerator, recipe, step=step)
    out = Path(recipe.out)
    try:
        if accelerator.is_main_process:
            save_recipe(recipe, out / "recipe.yaml")
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
        name: value for name, value in to_dict(recipe).items() if name not in ("out", "checkpoint_minutes")
    }
    return values | {name: _public(values[name]) for name in ("data", "model", "start", "teacher")}


def _public(name: str) -> str:
    # An adapter travels, and the folders of the machine that made it are nobody's business.
    return ",".join(Path(part).name if Path(part).is_absolute() else part for part in name.split(","))


def _provenance(recipe: Recipe, data: CachedDataset, num_held_out: int) -> dict[str, Any]:
    sources = Counter(entry.record.source for entry in data.entries)
    return {
        "source": _public(recipe.data),
        "digest": data.digest,
        "records": len(data.entries),
        "held_out": num_held_out,
        "sources": dict(sorted(sources.items())),
    }


def _saved(adapter: Adapter, recipe: Recipe, accelerator: Accelerator) -> Adapter:
    # Without the time of day, the same run writes the same bytes.
    adapter = replace(adapter, created="")
    if accelerator.is_main_process:
        adapter.save(Path(recipe.out) / "adapter.safetensors")
    accelerator.wait_for_everyone()
    return adapter

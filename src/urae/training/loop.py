"""The loop: one optimizer step after another, and what is written down between them."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from urae.adapters import Attached
from urae.data import CachedDataset, Sample
from urae.errors import Stopped, TrainingDiverged
from urae.execution import group_of, in_all, on_main
from urae.io import Journal, Progress
from urae.training.checkpoint import Checkpoint, save_checkpoint
from urae.training.metrics import track_pictures
from urae.training.optimizer import load_optimizer, make_optimizer, optimizer_state, step_size
from urae.training.recipe import Recipe
from urae.training.samples import Sampler
from urae.training.step import Gradient, Objective, Share
from urae.training.stopping import Stopping
from urae.training.validation import validation_row

__all__ = ["Loop", "Setting"]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a loop works with and does not change."""

    recipe: Recipe
    accelerator: Accelerator
    attached: Attached
    objective: Objective
    data: CachedDataset
    held_out: CachedDataset
    sampler: Sampler | None
    """None where no samples are drawn."""
    metrics: Journal | None
    """None beside the main process."""
    identity: dict[str, Any]
    """What a checkpoint must share with a run that goes on from it."""
    attention: str
    """Name of the attention kernel that was chosen; "" where torch chooses."""


class Loop:
    """A run in progress: the trained parameters, the optimizer's state, and the number of steps done."""

    def __init__(self, setting: Setting) -> None:
        self.setting, self.recipe, self.accelerator = setting, setting.recipe, setting.accelerator
        self.parameters = setting.attached.parameters()
        self.optimizer = make_optimizer(self.parameters, self.recipe)
        self.average = [p.detach().clone() for p in self.parameters] if self.recipe.ema else []
        self.step, self.saved = 0, time.monotonic()

    def run(self) -> None:
        """Train from the current step to the last, or to the one in which a signal comes: then raise `Stopped`."""
        total, main = self.recipe.steps, self.accelerator.is_main_process
        with (
            Progress("training", total=total, done=self.step, show=main) as progress,
            Stopping(show=main) as stopping,
        ):
            if self.step == 0 and self.recipe.validate_every:
                self._log({"step": 0, **self._validate(progress)})
            elif self.step:
                self._draw()  # those before which the run was stopped
            for row in self._steps():
                self._log(row | self._validate(progress) if self._due(self.recipe.validate_every) else row)
                progress.advance(f"loss {row['loss']:.4f}, {row['seconds']:.2f} s/step")
                signal = stopping.agreed()
                if self._is_saved_now() or signal:
                    on_main(self._save)
                if signal and self.step < total:
                    raise Stopped(f"after step {self.step} of {total}; the same command goes on", signal)
                self._draw()

    @contextmanager
    def result(self) -> Iterator[None]:
        """Let the parameters hold the result, which is their moving average where the recipe keeps one."""
        before = [parameter.detach().clone() for parameter in self.parameters] if self.average else []
        _copy_(self.parameters, self.average)
        try:
            yield
        finally:
            _copy_(self.parameters, before)

    def load(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint of the same run."""
        self.setting.attached.load_state_dict(checkpoint.tensors["adapter"])
        load_optimizer(self.optimizer, checkpoint.tensors["optimizer"], checkpoint.state["optimizer"])
        for index, average in enumerate(self.average):
            average.copy_(checkpoint.tensors["average"][str(index)])
        self.step = checkpoint.step

    # --- one step -------------------------------------------------------------------------------------------

    def _steps(self) -> Iterator[dict[str, float]]:
        """One optimizer step after another; their rows of metrics."""
        shares = self._shares()
        share = next(shares, None)
        while share:
            started = time.perf_counter()
            launched = self.setting.objective.backward(share, self.parameters)
            # While the device computes, the host draws the next share, which needs nothing of this step.
            following = next(shares, None)
            gradient = launched.wait()
            self._update(gradient, share)
            yield self._row(gradient, seconds=time.perf_counter() - started)
            share = following

    def _shares(self) -> Iterator[Share]:
        """This process's images of each remaining step."""
        group, num_groups = group_of(self.recipe.context_parallel)
        samples = self.setting.data.stream(
            self.recipe.batch_size,
            seed=self.recipe.seed,
            caption_mix=self.recipe.caption_mix,
            caption_dropout=self.recipe.caption_dropout,
            start=self.step,
            stop=self.recipe.steps,
            process=group,
            num_processes=num_groups,
            num_workers=self.recipe.num_workers,
        )
        for step, share in enumerate(samples, self.step):
            yield self.setting.objective.draw(share, step=step)

    def _update(self, gradient: Gradient, share: Share) -> None:
        if not (math.isfinite(gradient.losses["loss"]) and math.isfinite(gradient.norm)):
            self._diverged(gradient, share.samples)
        self.optimizer.step()
        self.optimizer.zero_grad()
        for average, parameter in zip(self.average, self.parameters, strict=False):
            average.lerp_(parameter.detach(), 1 - self.recipe.ema)
        self.step += 1

    def _row(self, gradient: Gradient, *, seconds: float) -> dict[str, float]:
        sizes = {"gradient_norm": gradient.norm, "step_size": step_size(self.optimizer), "seconds": seconds}
        return {"step": self.step, **gradient.losses, **sizes}

    def _diverged(self, gradient: Gradient, samples: Sequence[Sample]) -> NoReturn:
        kept = ""
        if self.step:
            on_main(self._save)
            kept = f"; the state after step {self.step} is in {Path(self.recipe.out) / 'checkpoints'}"
        what = "loss" if gradient.spoilt else "gradient"
        records = gradient.spoilt or [sample.id for sample in samples]
        raise TrainingDiverged(
            f"the {what} is NaN or infinite in step {self.step + 1}, at the records {', '.join(records)}: "
            f"look at these images, lower lr (now {self.recipe.lr:g}) or clip_norm, or use base_dtype=fp32{kept}"
        )

    # --- between steps --------------------------------------------------------------------------------------

    def _due(self, every: int) -> bool:
        return every > 0 and self.step % every == 0

    def _is_saved_now(self) -> bool:
        # Before samples, which may take longer than the steps between them.
        due = any(map(self._due, (self.recipe.checkpoint_every, self.recipe.sample_every)))
        return due or self.step == self.recipe.steps or self._is_time()

    def _is_time(self) -> bool:
        """Whether the last checkpoint is too long ago; the main process says so, since clocks differ."""
        seconds = self.recipe.checkpoint_minutes * 60
        return seconds > 0 and on_main(lambda: time.monotonic() - self.saved > seconds)

    def _log(self, row: dict[str, Any]) -> None:
        if self.setting.metrics:
            kernel = {"attention": self.setting.attention} if self.setting.attention else {}
            self.setting.metrics.append(_in_json(row | kernel))
        self.accelerator.log({name: value for name, value in row.items() if name != "step"}, step=row["step"])

    def _validate(self, progress: Progress) -> dict[str, float]:
        with self.result():
            row = validation_row(
                self.setting.objective.student,
                self.setting.held_out,
                self.accelerator,
                group=group_of(self.recipe.context_parallel),
            )
        progress.say(f"step {self.step}: validation loss {row['validation_loss']:.4f}")
        return row

    def _draw(self) -> None:
        """The sample images that are due after this step, but for those that it has."""
        sampler = self.setting.sampler
        if sampler and self._due(self.recipe.sample_every):
            with self.result():
                in_all(lambda: sampler.draw(self.step))
            track_pictures(self.accelerator, sampler.folder, step=self.step)

    def _save(self) -> None:
        assert self.setting.metrics is not None
        checkpoint = self._checkpoint(self.setting.metrics.length())
        folder = Path(self.recipe.out) / "checkpoints"
        save_checkpoint(checkpoint, folder, keep=self.recipe.keep_checkpoints)
        self.saved = time.monotonic()

    def _checkpoint(self, metrics_length: int) -> Checkpoint:
        tensors, rest = optimizer_state(self.optimizer)
        groups = {"adapter": self.setting.attached.state_dict(), "optimizer": tensors}
        if self.average:
            groups["average"] = {str(index): tensor for index, tensor in enumerate(self.average)}
        state = {"identity": self.setting.identity, "metrics": metrics_length, "optimizer": rest}
        return Checkpoint(step=self.step, tensors=groups, state=state)


def _in_json(row: dict[str, Any]) -> dict[str, Any]:
    """JSON has no NaN, which a validation loss can be."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in row.items()
    }


def _copy_(targets: Sequence[nn.Parameter], sources: Sequence[Tensor]) -> None:
    with torch.no_grad():
        for target, source in zip(targets, sources, strict=False):
            target.copy_(source)

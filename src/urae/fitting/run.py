"""Measuring: picture by picture, every policy that is still in the running, at every noise level and on one noise.

A policy drops out as soon as a sequential sign test is sure that another one, of a lower mean error, errs less on
more than half of such pictures. With m policies it takes evidence of (m - 1) / 0.05 against any one of the others, so
the best is dropped with a chance of 5% at most, however often one looks. Stock positions are measured to the end, to
compare with.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import torch

from urae.errors import UraeError
from urae.execution import frozen_base_placed, this_process
from urae.families import family_of
from urae.fitting.candidates import STOCK
from urae.fitting.plan import FittingPlan
from urae.fitting.result import Errors, FittingResult, score
from urae.io import Journal, Progress
from urae.resolution import ResolutionPolicy, size_scale
from urae.statistics.sequential import evidence
from urae.training.objective import Batch, velocity_error
from urae.training.prediction import Predictor, predictor
from urae.training.randomness import normal

__all__ = ["run_fitting", "surely_worse"]

ALPHA = 0.05


@torch.no_grad()
def run_fitting(plan: FittingPlan, journal: Path) -> FittingResult:
    """Measure what the file `journal` does not hold yet. Stopped at any moment, the same call goes on where it was. The
    pipeline is as it was afterwards."""
    errors: Errors = {name: {} for name in plan.candidates}
    worse: dict[str, int] = {}
    device, request = this_process().device, plan.request
    placed = frozen_base_placed(
        plan.pipe.transformer, device, weights=request.base_weights, num_swapped=request.swap_blocks
    )
    num = len(plan.pictures)
    with (
        placed,
        Journal(journal) as kept,
        Progress("measuring", total=num * len(plan.candidates)) as progress,
    ):
        measure = _Measure(plan, kept, device)
        for done, picture in enumerate(plan.pictures, start=1):
            going = [name for name in plan.candidates if name not in worse or name == STOCK]
            for name in going:
                errors[name][picture] = measure(name, picture)
                progress.advance(name)
            for name, better in _beaten(plan, errors, worse).items():
                worse[name] = done
                progress.say(f"{name}: surely worse than {better} after {done} pictures")
            still = len(plan.candidates) - len(worse.keys() - {STOCK})
            if done < num:
                progress.expect(progress.done + (num - done) * still)
    return FittingResult(
        size=request.size,
        scale=size_scale(plan.pipe, request.size),
        default=_default(plan),
        sigmas=tuple(request.sigmas),
        deciding=request.deciding,
        candidates=plan.candidates,
        errors=errors,
        worse=worse,
    )


def surely_worse(scores: Mapping[str, Mapping[str, float]], *, num: int) -> dict[str, str]:
    """Candidates that drop out now -> one that is surely better, out of `num` in all. scores: those still in the
    running -> picture -> error.

    Only one with a lower mean counts as better: three may beat each other in turn on most pictures, and none would be
    left.
    """
    order = sorted(scores, key=lambda name: sum(scores[name].values()))
    beaten = {}
    for place, name in enumerate(order):
        stakes = {other: _stake(scores[name], scores[other]) for other in order[:place]}
        best = max(stakes, key=lambda other: stakes[other], default="")
        if best and stakes[best] >= (num - 1) / ALPHA:
            beaten[name] = best
    return beaten


def _beaten(plan: FittingPlan, errors: Errors, worse: Mapping[str, int]) -> dict[str, str]:
    if not plan.request.stop_early:
        return {}
    scores = {
        name: {picture: score(values, plan.request.deciding) for picture, values in rows.items()}
        for name, rows in errors.items()
        if name not in worse
    }
    return surely_worse(scores, num=len(plan.candidates))


def _stake(own: Mapping[str, float], other: Mapping[str, float]) -> float:
    return evidence(sum(own[p] > other[p] for p in own), sum(own[p] < other[p] for p in own))


class _Measure:
    """The errors of a candidate on a picture, from the journal where they are known."""

    def __init__(self, plan: FittingPlan, journal: Journal, device: torch.device) -> None:
        self.plan, self.journal, self.device = plan, journal, device
        transformer = plan.pipe.transformer
        # A model with embedded guidance is shown 1, and one with classifier-free guidance the caption alone: the
        # conditional velocity, which is what clean pictures measure.
        self.predict: Predictor = predictor(
            family_of(transformer), transformer, guidance=1.0, base_dtype="fp32"
        )
        self.known = {line["key"]: tuple(line["errors"]) for line in journal.lines}
        self.loaded: tuple[str, list[Batch]] = ("", [])

    def __call__(self, name: str, picture: str) -> tuple[float, ...]:
        key = self.plan.key(name, picture)
        if key not in self.known:
            self.known[key] = self._errors(self.plan.candidates[name], picture)
            line = {"key": key, "policy": name, "picture": picture, "sigmas": self.plan.request.sigmas}
            self.journal.append({**line, "errors": self.known[key]})
        return self.known[key]

    def _errors(self, policy: ResolutionPolicy, picture: str) -> tuple[float, ...]:
        with policy.on(self.plan.pipe.transformer):
            errors = tuple(
                velocity_error(self.predict(batch), batch.velocity).item() for batch in self._batches(picture)
            )
        if not all(map(math.isfinite, errors)):
            raise UraeError(
                f"the model's velocity on picture {picture[:12]} is not finite: open it in another type, such as "
                "--dtype bfloat16"
            )
        return errors

    def _batches(self, picture: str) -> list[Batch]:
        """The picture at each noise level. Its noise is keyed by its content and the level, so that neither other
        pictures nor other levels change it."""
        if self.loaded[0] != picture:
            sample = self.plan.data[self.plan.pictures[picture]]
            clean = sample.posterior.mean[None]
            text = {name: tensor[None] for name, tensor in sample.text.items()}
            place = int(picture[:8], 16)
            batches = [
                Batch(
                    clean=clean,
                    noise=normal(
                        clean.shape, seed=0, step=round(sigma * 1e6), sample=place, purpose="policy"
                    ),
                    sigma=torch.tensor([sigma], dtype=torch.float32),
                    embeddings=text,
                ).to(self.device)
                for sigma in self.plan.request.sigmas
            ]
            self.loaded = (picture, batches)
        return self.loaded[1]


def _default(plan: FittingPlan) -> str:
    """The candidate that `ResolutionPolicy.for_size` would take; "" where it is none of them."""
    usual = ResolutionPolicy.for_size(plan.pipe, plan.request.size)
    return next((name for name, policy in plan.candidates.items() if policy == usual), "")

"""Candidates in, a table out: every metric on every picture once, statistics by prompt, and what the numbers rest on.

    table = evaluate({"ours": "out/ours", "base": "out/base"}, metrics=("repetition", "patch_fid"), against="real")

A candidate is a folder of pictures, wherever it comes from. Metrics that compare with references name them in their
column: `patch_fid@real`. Pictures are read batch by batch and shown to every metric while they are in memory.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal

import numpy as np

from urae.exports import takes
from urae.metrics.columns import Chosen, check, choose
from urae.metrics.declarations import DEFAULT_METRICS
from urae.metrics.features import FeatureCache, feature_key, versions
from urae.metrics.metric import Metric, Options
from urae.metrics.pictures import LazyPicture, MeasuredPicture, Pictures, Prompts, as_candidates, collect
from urae.statistics import Column, Comparison, Table, by_prompt, compare, tabulate
from urae.statistics.intervals import MIN_PROMPTS, adjusted
from urae.statistics.table import Values

__all__ = ["EvaluationPlan", "EvaluationRequest", "evaluate", "plan_evaluation"]


@dataclass(frozen=True, kw_only=True)
class EvaluationRequest:
    """What is measured, by what, and compared with what."""

    metrics: Sequence[str] = DEFAULT_METRICS
    """Names of `urae.metrics.METRICS`; where there are several references, a metric names its own, as in
    "fid@teacher"."""
    against: Pictures | Mapping[str, Pictures] = ()
    """References, as the candidates."""
    weights: Mapping[str, Path | str] = field(default_factory=dict)
    """Metric -> file or folder; one given for `fid` serves every metric with the same weights."""
    baseline: str = ""
    """Candidate that the others are compared with below the table."""
    crops: int = field(default=8, metadata={"min": 1})
    """Native crops of each picture."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where networks run."""
    seed: int = 0
    """Seed of the bootstrap."""


@takes(EvaluationRequest)
def evaluate(
    images: Pictures | Mapping[str, Pictures],
    prompts: Prompts = "png",
    *,
    cache: Path | str | None = None,
    batch_size: int = 8,
    **asked: Any,
) -> Table:
    """Measure pictures by `metrics` (names of `urae.metrics.METRICS`) and compare candidates prompt by prompt.

    `images`: a folder, a list of files or images, or a mapping of candidates to such. `prompts`: "png" for the text in
    each PNG, "names" to count each picture name as a prompt, a file of prompts by name, a mapping, or one a picture.
    `cache`: folder that keeps features, so that a repeated run measures nothing. All other settings are the fields of
    `EvaluationRequest`.

    Six different prompts are the least for a metric of pictures. A Frechet distance of too few pictures comes with the
    unbiased metric beside it, and numbers of untrained networks are not printed. `ValueError` where pictures, prompts,
    references and weights do not fit together.
    """
    return plan_evaluation(images, prompts, **asked).run(cache=cache, batch_size=batch_size)


@dataclass(frozen=True, kw_only=True)
class EvaluationPlan:
    """Everything that will be measured: it can be printed, compared and run. Made by `plan_evaluation`."""

    candidates: Mapping[str, Sequence[MeasuredPicture]]
    references: Mapping[str, Mapping[str, LazyPicture]]
    """Name -> picture by its name."""
    chosen: Sequence[Chosen]
    baseline: str
    options: Options
    seed: int

    def __str__(self) -> str:
        lines = [f"{name}: {len(samples)} pictures" for name, samples in self.candidates.items()]
        lines += [f"against {name}: {len(pictures)} pictures" for name, pictures in self.references.items()]
        columns = ", ".join(c.column for c in self.chosen)
        return "\n".join([*lines, f"metrics: {columns}", f"device: {self.options.device}"])

    @property
    def num_pictures(self) -> int:
        """How often `run` calls `on_picture`."""
        sets = {c.reference for c in self.chosen if c.metric.needs == "set"}
        return sum(map(len, self.candidates.values())) + sum(len(self.references[name]) for name in sets)

    def pictures(self) -> dict[str, dict[str, Path]]:
        """Candidate -> prompt -> its first file, for the page behind the table; only for candidates that are files."""
        return {
            name: {s.unit: s.picture.source for s in reversed(samples) if isinstance(s.picture.source, Path)}
            for name, samples in self.candidates.items()
        }

    def run(
        self,
        *,
        cache: Path | str | None = None,
        batch_size: int = 8,
        on_picture: Callable[[], None] = lambda: None,
    ) -> Table:
        """Measure what `cache` does not hold, and make the table; `on_picture` is called after each picture."""
        held, arrays = FeatureCache(cache), {}
        for name, samples in self.candidates.items():
            arrays[name] = _measure(list(self._tasks(samples)), held, batch_size, on_picture)
        behind = {
            name: _measure(list(self._reference_tasks(name)), held, batch_size, on_picture)
            for name in self.references
        }
        scores = {
            name: {c.column: self._score(c, name, arrays[name], behind) for c in self.chosen}
            for name in arrays
        }
        columns = [
            self._column(c, {name: row[c.column] for name, row in scores.items()}) for c in self.chosen
        ]
        return tabulate(scores, columns=columns, seed=self.seed)

    def _tasks(self, samples: Sequence[MeasuredPicture]) -> Iterator[Task]:
        """Each picture with what is to be measured on it; pairs know their partners."""
        for sample in samples:
            yield [
                (c, replace(sample, partner=self.references[c.reference][sample.name]))
                if c.metric.needs == "pair"
                else (c, sample)
                for c in self.chosen
            ]

    def _reference_tasks(self, reference: str) -> Iterator[Task]:
        chosen = [c for c in self.chosen if c.metric.needs == "set" and c.reference == reference]
        for name, picture in self.references[reference].items() if chosen else ():
            yield [(c, MeasuredPicture(picture=picture, name=name, prompt="")) for c in chosen]

    def _score(self, c: Chosen, name: str, arrays: Arrays, behind: Mapping[str, Arrays]) -> Values:
        if c.metric.distance:
            return c.metric.distance(arrays[c.column], behind[c.reference][c.column], seed=self.seed)
        units = (sample.unit for sample in self.candidates[name])
        return by_prompt(units, (float(value) for value in arrays[c.column]))

    def _column(self, c: Chosen, scores: Mapping[str, Values]) -> Column:
        untrained = bool(c.weights and c.weights.untrained)
        differences = "" if untrained else self._against_baseline(c.metric, scores)
        return Column(
            name=c.column,
            direction=c.metric.direction,
            digits=c.metric.digits,
            bounds=c.metric.bounds,
            note=". ".join(filter(None, [self._told(c), differences])),
            untrained=untrained,
            details=self._details(c),
        )

    def _told(self, c: Chosen) -> str:
        """What stands below the table."""
        parts = [f"{c.metric.says}; sees {c.metric.sees}"]
        counts = sorted({len(samples) for samples in self.candidates.values()})
        if c.metric.needs == "set":
            shown = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"
            crops = f", {self.options.num_crops} crops of each" if c.metric.crop else ""
            few = f"; no interval with fewer than {MIN_PROMPTS} pictures" if counts[0] < MIN_PROMPTS else ""
            parts.append(
                f"{shown} pictures against {len(self.references[c.reference]):,} of {c.reference}{crops}{few}"
            )
        if c.weights:
            parts.append(f"weights {c.weights.path.name} ({c.weights.sha256[:12]})")
        return "; ".join(parts)

    def _against_baseline(self, metric: Metric, scores: Mapping[str, Values]) -> str:
        """Paired differences, corrected by Holm for their number; empty without a baseline, and for whole sets."""
        paired = {name: values for name, values in scores.items() if isinstance(values, Mapping)}
        if self.baseline not in paired:
            return ""
        base = paired.pop(self.baseline)
        results = adjusted(
            {
                name: compare(values, base, bounds=metric.bounds, seed=self.seed)
                for name, values in paired.items()
            }
        )
        told = (_told(name, result, metric.digits) for name, result in results.items())
        return f"Difference to {self.baseline}: {', '.join(told)}"

    def _details(self, c: Chosen) -> dict[str, Any]:
        details: dict[str, Any] = {
            "metric": c.metric.name,
            "reads": c.reader.identity,
            "num_pictures": {name: len(samples) for name, samples in self.candidates.items()},
            "seed": self.seed,
            "versions": {"urae": importlib.metadata.version("urae"), **versions()},
        }
        if c.weights:
            details |= {"weights": c.weights.path.name, "weights_sha256": c.weights.sha256}
        if c.reference:
            pictures = self.references[c.reference]
            lines = "\n".join(f"{name} {pictures[name].digest}" for name in sorted(pictures))
            details |= {
                "reference": c.reference,
                "num_reference": len(pictures),
                "reference_sha256": hashlib.sha256(lines.encode()).hexdigest(),
            }
        return details


Task = list[tuple[Chosen, MeasuredPicture]]
"""What is to be measured on one picture."""
Arrays = Mapping[str, list[np.ndarray]]
"""Column -> one array a picture."""


@takes(EvaluationRequest)
def plan_evaluation(
    images: Pictures | Mapping[str, Pictures], prompts: Prompts = "png", **asked: Any
) -> EvaluationPlan:
    """What `evaluate` will measure, checked as far as can be without reading pixels. Arguments as there."""
    request = EvaluationRequest(**asked)
    candidates = {name: collect(name, given, prompts) for name, given in as_candidates(images).items()}
    references = {
        name: {sample.name: sample.picture for sample in collect(name, given, "names")}
        for name, given in (as_candidates(request.against) if request.against else {}).items()
    }
    options = Options(device=_device(request.device), num_crops=request.crops)
    chosen = choose(request.metrics, candidates, references, request.weights or {}, options)
    if unused := [name for name in references if name not in {c.reference for c in chosen}]:
        raise ValueError(f"the reference {unused[0]!r} has no effect: none of the metrics compares with it")
    if request.baseline and (request.baseline not in candidates or len(candidates) < 2):
        raise ValueError(
            f"baseline is {request.baseline!r}: expected one of several candidates, {', '.join(candidates)}"
        )
    for c in chosen:
        check(c, candidates, references, prompts)
    return EvaluationPlan(
        candidates=candidates,
        references=references,
        chosen=chosen,
        baseline=request.baseline,
        options=options,
        seed=request.seed,
    )


def _measure(
    tasks: Sequence[Task], cache: FeatureCache, batch_size: int, on_picture: Callable[[], None]
) -> dict[str, list[np.ndarray]]:
    arrays: dict[str, list[np.ndarray]] = {}
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(tasks), batch_size):
            batch = tasks[start : start + batch_size]
            pictures = [task[0][1].picture for task in batch if not all(_key(*one) in cache for one in task)]
            # Decoding leaves Python's lock, and a 4K PNG takes a second.
            list(pool.map(attrgetter("image"), pictures))
            for column in zip(*batch, strict=True):
                arrays.setdefault(column[0][0].column, []).extend(_read(column, cache))
            _release(batch)
            for _ in batch:
                on_picture()
    return arrays


def _read(column: Sequence[tuple[Chosen, MeasuredPicture]], cache: FeatureCache) -> list[np.ndarray]:
    """The arrays of one metric on a batch, measured where the cache has none."""
    missing = [(c, sample) for c, sample in column if _key(c, sample) not in cache]
    if missing:
        reader = missing[0][0].reader
        for one, value in zip(missing, reader.read([sample for _, sample in missing]), strict=True):
            cache[_key(*one)] = value
    return [cache[_key(*one)] for one in column]


def _release(batch: Sequence[Task]) -> None:
    for task in batch:
        for _, sample in task:
            sample.picture.release()
            if sample.partner:
                sample.partner.release()


def _key(c: Chosen, sample: MeasuredPicture) -> str:
    return feature_key(c.metric, c.reader, sample)


def _told(name: str, result: Comparison, digits: int) -> str:
    value, low, high = (
        f"{number:+z.{digits}f}"
        for number in (result.difference.value, result.difference.low, result.difference.high)
    )
    return (
        f"{name} {value} [{low}, {high}] (p = {result.p_adjusted:.2g}{'' if result.real else ', not real'})"
    )


def _device(name: str) -> str:
    if name == "auto":
        import torch  # here, since it takes seconds and `--help` needs none of it

        return "cuda" if torch.cuda.is_available() else "cpu"
    if name not in ("cpu", "cuda"):
        raise ValueError(f"device is {name!r}: expected auto, cpu or cuda")
    return name

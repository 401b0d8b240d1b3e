"""The columns of an evaluation: metrics with their references and weights, checked before a pixel is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path

from urae.metrics.declarations import METRICS, metric_named
from urae.metrics.metric import Metric, Options, Reader
from urae.metrics.pictures import LazyPicture, MeasuredPicture, Prompts
from urae.metrics.weights import LocalWeights
from urae.statistics.intervals import check_prompts, check_same_prompts

__all__ = ["Chosen", "check", "choose"]


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """A metric with its reference and its weights: one column of the table."""

    metric: Metric
    reference: str
    weights: LocalWeights | None
    reader: Reader

    @property
    def column(self) -> str:
        return f"{self.metric.name}@{self.reference}" if self.reference else self.metric.name


def choose(
    metrics: Sequence[str],
    candidates: Mapping[str, Sequence[MeasuredPicture]],
    references: Mapping[str, Mapping[str, LazyPicture]],
    weights: Mapping[str, Path | str],
    options: Options,
) -> list[Chosen]:
    """The columns in order, each biased distance of few pictures with the unbiased one after it."""
    opened, chosen = _opened_weights(weights), []
    named = [(metric_named(text.partition("@")[0]), text.partition("@")[2]) for text in metrics]
    wanted = [(metric, _reference(metric, given, references)) for metric, given in named]
    asked = [(metric.name, reference) for metric, reference in wanted]
    if len(set(asked)) < len(asked):
        raise ValueError(f"metrics are {', '.join(metrics)}: expected each once")
    for metric, reference in wanted:
        chosen.append(_open(metric, reference, opened, options))
        sizes = [*map(len, candidates.values()), len(references.get(reference, ()))]
        rows = min(sizes) * (options.num_crops if metric.crop else 1)
        if metric.beside and rows < metric.enough and (metric.beside, reference) not in asked:
            chosen.append(_open(metric_named(metric.beside), reference, opened, options))
    useful = {c.metric.weights for c in chosen}
    if useless := [name for name in weights if METRICS[name].weights not in useful]:
        raise ValueError(f"weights of {useless[0]} have no effect: none of the metrics reads them")
    return chosen


def _open(metric: Metric, reference: str, weights: Mapping[str, LocalWeights], options: Options) -> Chosen:
    own = _weights_of(metric, weights) if metric.weights else None
    return Chosen(metric=metric, reference=reference, weights=own, reader=metric.open(own, options))


def _weights_of(metric: Metric, weights: Mapping[str, LocalWeights]) -> LocalWeights:
    given = [name for name in weights if METRICS[name].weights == metric.weights]
    if not given:
        raise ValueError(f"{metric.name} needs weights: give the path of a {metric.weights}")
    return weights[metric.name if metric.name in given else given[0]]


def _opened_weights(weights: Mapping[str, Path | str]) -> dict[str, LocalWeights]:
    for name in weights:
        if not metric_named(name).weights:
            raise ValueError(f"{name} takes no weights: leave them out")
    return {name: LocalWeights(Path(path)) for name, path in weights.items()}


def _reference(metric: Metric, given: str, references: Mapping[str, object]) -> str:
    if metric.needs not in ("pair", "set"):
        if given:
            raise ValueError(f"{metric.name} compares with no reference: leave out @{given}")
        return ""
    if not given and len(references) == 1:
        return next(iter(references))
    if given not in references:
        known = ", ".join(f"{metric.name}@{name}" for name in references) or "a reference, given by `against`"
        raise ValueError(f"{metric.name} compares with a reference: expected {known}")
    return given


def check(
    c: Chosen,
    candidates: Mapping[str, Sequence[MeasuredPicture]],
    references: Mapping[str, Mapping[str, LazyPicture]],
    prompts: Prompts,
) -> None:
    if c.metric.needs == "prompt" and prompts == "names":
        raise ValueError(f"{c.metric.name} reads prompts, and 'names' are none: give prompts")
    prompts_of = {name: {sample.unit for sample in samples} for name, samples in candidates.items()}
    for name, samples in candidates.items():
        if not c.metric.distance:
            check_prompts(len(prompts_of[name]))
            check_same_prompts(prompts_of[name], next(iter(prompts_of.values())))
        if c.metric.needs == "set":
            _check_enough(c, {name: samples, c.reference: references[c.reference]})
        if c.metric.needs == "pair":
            _check_partners(c, name, samples, references[c.reference])
        if c.metric.crop:
            _check_sizes(c, name, [s.picture for s in samples], list(references[c.reference].values()))


def _check_enough(c: Chosen, sets: Mapping[str, Sized]) -> None:
    for name, pictures in sets.items():
        if len(pictures) < 2:
            raise ValueError(f"{c.column} compares sets, and {name} has one picture: expected at least two")


def _check_partners(
    c: Chosen, name: str, samples: Sequence[MeasuredPicture], partners: Mapping[str, LazyPicture]
) -> None:
    if missing := [sample.name for sample in samples if sample.name not in partners]:
        raise ValueError(
            f"{c.column} compares pictures of the same name, and {c.reference} has none for {len(missing)} of "
            f"{len(samples)} of {name}, such as {missing[0]!r}"
        )


def _check_sizes(c: Chosen, name: str, own: Sequence[LazyPicture], others: Sequence[LazyPicture]) -> None:
    sizes, wanted = {picture.size for picture in own}, {picture.size for picture in others}
    if small := [size for size in sizes | wanted if min(size) < c.metric.crop]:
        raise ValueError(
            f"{c.column} looks at native crops of {c.metric.crop} px, and there are pictures of "
            f"{small[0][0]}x{small[0][1]} px: leave it out"
        )
    if sizes != wanted:
        raise ValueError(
            f"{c.column} compares native detail, and {name} has pictures of {_shown(sizes)} px, {c.reference} of "
            f"{_shown(wanted)} px: give a reference of the same sizes"
        )


def _shown(sizes: set[tuple[int, int]]) -> str:
    return ", ".join(f"{width}x{height}" for width, height in sorted(sizes))

"""Thresholds, and what falls short of them.

An image is measured once; which measures are good enough is decided afterwards, so that a run with other
thresholds reads no image again. A reject has one reason: the first of `REASONS` that applies.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from urae.data.pixels import cover_scale, training_bucket, training_buckets
from urae.data.sidecar import Sidecar
from urae.intake.measures import Measures
from urae.io import UNREADABLE_REASONS

__all__ = ["REASONS", "Filters", "Reject"]

REASONS = {
    "sidecar": "listed with a problem: a broken sidecar, shard or link",
    **UNREADABLE_REASONS,
    "size": "would have to be enlarged to cover its bucket",
    "aspect": "is too long for its width, or too tall",
    "caption": "has a caption that is too short or too long",
    "licence": "is not under an allowed licence",
    "entropy": "has too few grey levels",
    "flatness": "has nothing to see in most of it",
    "sharpness": "is blurred, or was enlarged before",
    "blockiness": "shows the blocks of JPEG",
    "detector": "was found out by a detector",
    "duplicate": "looks like another one that is kept",
}
"""Why an image is not taken: reason -> what is said of the image. In the order in which they are looked for."""


@dataclass(frozen=True, kw_only=True)
class Reject:
    """An image that is not taken."""

    name: str
    """Of the image in its source."""
    reason: str
    """One of `REASONS`, or of a detector "detector NAME"."""
    detail: str
    """What was found and what was expected."""
    value: float = 0.0
    """What was measured, where it is a number."""


@dataclass(frozen=True, kw_only=True)
class Filters:
    """What an image must be to be taken."""

    size: int
    """Side in px of the square whose area the training buckets have: an image must cover the bucket nearest to its
    shape without being enlarged."""
    max_ratio: float = 2.5
    """Most of the long side over the short one. Buckets go to 2: what is longer loses its ends."""
    captions: tuple[int, int] = (0, 10_000)
    """Least and most characters of each caption. With a least of 1 or more, an image without a caption is not taken."""
    licences: tuple[str, ...] = ()
    """Allowed licences, by name, any case; none for all."""
    entropy: float = 3.0
    """Least, bits: photographs have 6 to 8, line drawings 1 to 3."""
    flatness: float = 0.9
    """Most of the picture with nothing to see, 0 to 1."""
    sharpness: float = 0.125
    """Least: twofold enlargements have up to 0.12, photographs 0.17 to 0.8 (docs/guides/data.md)."""
    blockiness: float = 3.5
    """Most of JPEG's blocks: it has 1.5 to 2 at quality 90, 3 at 50, 4 to 7 below 30; 1 is none."""
    duplicates: int = 6
    """Bits of 64 in which two perceptual hashes may differ and count as the same picture; -1 keeps all."""
    detectors: dict[str, float] = field(default_factory=dict)
    """Most that each detector may say: name -> score."""

    def __post_init__(self) -> None:
        _check(self)

    @classmethod
    def off(cls, size: int) -> Filters:
        """Nothing is asked of an image but that it can be read and covers its bucket at `size`."""
        return cls(
            size=size,
            max_ratio=float("inf"),
            captions=(0, 10**9),
            entropy=0,
            flatness=1,
            sharpness=0,
            blockiness=float("inf"),
            duplicates=-1,
        )

    def reject(
        self, name: str, sidecar: Sidecar, measures: Measures, scores: dict[str, float]
    ) -> Reject | None:
        """The first thing that is wrong with an image, duplicates aside; None if it is taken."""
        found = (
            *self._shape(measures),
            *self._text(sidecar),
            *self._look(measures),
            *self._scores(scores),
        )
        return next(
            (Reject(name=name, reason=r, detail=detail, value=value) for r, detail, value in found), None
        )

    def _shape(self, measures: Measures) -> Iterator[tuple[str, str, float]]:
        width, height = measures.size
        bucket = training_bucket(measures.size, self.size)
        scale = cover_scale(measures.size, bucket)
        if scale > 1:
            enough = f"{bucket[0]}x{bucket[1]} is enough for its shape at {self.size} px"
            yield "size", f"{width}x{height}, {enough}", 1 / scale
        ratio = max(width / height, height / width)
        if ratio > self.max_ratio:
            yield "aspect", f"{ratio:.2f} to 1, at most {self.max_ratio:g}", ratio

    def _text(self, sidecar: Sidecar) -> Iterator[tuple[str, str, float]]:
        least, most = self.captions
        lengths = [len(text) for text in sidecar.captions.values()] or [0]
        for length in lengths:
            if not least <= length <= most:
                yield "caption", f"{length} characters, expected {least} to {most}", length
        licence = sidecar.facts.get("licence", "")
        if self.licences and licence.casefold() not in {name.casefold() for name in self.licences}:
            yield "licence", f"{licence or 'not known'}, expected {' or '.join(self.licences)}", 0.0

    def _look(self, measures: Measures) -> Iterator[tuple[str, str, float]]:
        for name, sign in (("entropy", 1), ("flatness", -1), ("sharpness", 1), ("blockiness", -1)):
            value, threshold = getattr(measures, name), getattr(self, name)
            if sign * value < sign * threshold:
                side = "at least" if sign > 0 else "at most"
                yield name, f"{value:.3g}, {side} {threshold:g}", value

    def _scores(self, scores: dict[str, float]) -> Iterator[tuple[str, str, float]]:
        for name, most in self.detectors.items():
            if scores[name] > most:
                yield f"detector {name}", f"{scores[name]:.3g}, at most {most:g}", scores[name]


def _check(filters: Filters) -> None:
    training_buckets(filters.size)
    least, most = filters.captions
    if not 0 <= least <= most:
        raise ValueError(
            f"captions is {filters.captions}: expected the least and the most characters, from 0"
        )
    if filters.max_ratio < 1:
        raise ValueError(
            f"max_ratio is {filters.max_ratio:g}: expected the long side over the short one, 1 or more"
        )
    for name, high in (("entropy", 8), ("flatness", 1), ("sharpness", 4), ("blockiness", float("inf"))):
        if not 0 <= getattr(filters, name) <= high:
            raise ValueError(f"{name} is {getattr(filters, name):g}: expected 0 to {high:g}")
    if not -1 <= filters.duplicates <= 16:
        raise ValueError(
            f"duplicates is {filters.duplicates}: expected 0 to 16 bits of 64, or -1 to keep all"
        )

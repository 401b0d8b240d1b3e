"""What is trained on, and in which order.

Records are shuffled anew each epoch by (seed, epoch). Where there are several sources, such as synthetic and
real images, each has its own epochs, and they take turns so that after any number of records each has had its
share to within one. The records are dealt into one queue per bucket; a queue that holds a batch becomes one.
What is left in a queue stays there for the next epoch, so every record of a source is seen equally often at any
batch size, and every batch has one shape.

The order, and which caption goes with an image, are functions of the seed alone: a position in them is the
number of batches taken, whatever the number of processes and workers.
"""

from __future__ import annotations

import hashlib
import json
import signal
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import accumulate, count, islice
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader

from urae.data.cache_format import Cache, Entry, Sample
from urae.resolution import Size

__all__ = ["CachedDataset", "Pick", "Source", "hold_out"]

DROPPED = "dropped"
"""In place of a kind of caption."""
CAPTION = 1
"""What is drawn: the caption. The numbers of `urae.training.randomness` begin after it."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """Entries of one cache, and how often they come."""

    cache: Cache
    entries: tuple[Entry, ...]
    share: float = 1.0
    """Of the records that are trained on; the shares of all sources add up to 1."""


class Pick(NamedTuple):
    """A record and the caption that goes with it."""

    entry: int
    caption: str


@dataclass(frozen=True)
class CachedDataset(torch.utils.data.Dataset):
    """The entries of one or more caches by number, first source first, and the order of training."""

    sources: tuple[Source, ...]
    empty: dict[str, torch.Tensor] = field(default_factory=dict, compare=False)
    """Embeddings of the empty caption, without a batch dimension, where some captions are dropped."""

    def __post_init__(self) -> None:
        shares = [source.share for source in self.sources]
        if min(shares) <= 0 or abs(sum(shares) - 1) > 1e-6:
            raise ValueError(
                f"shares are {', '.join(f'{share:g}' for share in shares)}: expected numbers above 0 that add up to 1"
            )

    @property
    def entries(self) -> tuple[Entry, ...]:
        """Of all sources."""
        return tuple(entry for source in self.sources for entry in source.entries)

    @property
    def digest(self) -> str:
        """Hash of what the order and the samples depend on."""
        if len(self.sources) == 1:
            return self.sources[0].cache.digest
        parts = [[source.cache.digest, source.share] for source in self.sources]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def __len__(self) -> int:
        return sum(len(source.entries) for source in self.sources)

    def __getitem__(self, pick: int | Pick) -> Sample:
        """A record with the caption that was picked, by default the detailed one."""
        index, caption = pick if isinstance(pick, Pick) else Pick(pick, "detailed")
        number = bisect_right(self._starts(), index) - 1
        source = self.sources[number]
        sample = source.cache.load(source.entries[index - self._starts()[number]], caption)
        return replace(sample, text=self.empty) if caption == DROPPED else sample

    def batches(self, batch_size: int, *, seed: int) -> Iterator[list[int]]:
        """Numbers of entries, batch after batch, each of one bucket, without end."""
        entries = self.entries
        queues: dict[Size, list[int]] = defaultdict(list)
        for index in self.order(seed):
            queue = queues[entries[index].bucket]
            queue.append(index)
            if len(queue) == batch_size:
                yield queue.copy()
                queue.clear()

    def order(self, seed: int) -> Iterator[int]:
        """Numbers of entries, as they are dealt into the buckets' queues, without end."""
        shuffled = [
            _shuffled(start, len(source.entries), seed=seed, number=number)
            for number, (start, source) in enumerate(zip(self._starts(), self.sources, strict=True))
        ]
        for number in turns([source.share for source in self.sources]):
            yield next(shuffled[number])

    def stream(
        self,
        batch_size: int,
        *,
        seed: int,
        caption_mix: float,
        caption_dropout: float = 0.0,
        start: int = 0,
        stop: int | None = None,
        process: int = 0,
        num_processes: int = 1,
        num_workers: int = 0,
    ) -> Iterator[list[Sample]]:
        """The samples of batches `start` to `stop` (without end for None), loaded ahead by `num_workers`.

        Of each batch a process gets the places process, process + num_processes, ...; a place in a batch has the
        empty caption with probability `caption_dropout`, else the original one with probability `caption_mix`, and
        otherwise the detailed one.
        """
        batches = islice(enumerate(self.batches(batch_size, seed=seed)), start, stop)
        picks = (
            [
                Pick(
                    batch[place],
                    drawn_caption(caption_mix, caption_dropout, seed=seed, step=step, place=place),
                )
                for place in range(process, batch_size, num_processes)
            ]
            for step, batch in batches
        )
        loader = DataLoader(
            self,
            batch_sampler=picks,
            collate_fn=list,
            num_workers=num_workers,
            generator=torch.Generator(),  # it draws a number that nothing here uses
            worker_init_fn=_undisturbed,
        )
        return iter(loader)

    def split(self, num: int) -> tuple[CachedDataset, CachedDataset]:
        """Data sets for training and of `num` records for validation, see `hold_out`."""
        held = {entry.record.id for entry in hold_out(self.entries, num)[1]}
        train, validation = (
            replace(self, sources=tuple(_only(source, held, inside) for source in self.sources))
            for inside in (False, True)
        )
        emptied = [str(source.cache.path) for source in train.sources if not source.entries]
        if emptied:
            raise ValueError(
                f"holding out {num} records leaves none to train on of {', '.join(emptied)}: hold out fewer"
            )
        return train, validation

    def _starts(self) -> list[int]:
        """The number of the first entry of each source."""
        return [0, *accumulate(len(source.entries) for source in self.sources[:-1])]


def _undisturbed(worker: int) -> None:
    """What stops a whole group of processes is for the one that trains, which needs the records of its last step."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)


def hold_out(entries: Sequence[Entry], num: int) -> tuple[tuple[Entry, ...], tuple[Entry, ...]]:
    """Entries for training and `num` for validation. The choice goes by a hash of each record's id, so a
    record stays on its side when others are added."""
    if not 0 <= num < len(entries):
        raise ValueError(
            f"{num} records cannot be held out of {len(entries)}: expected 0 to {len(entries) - 1}"
        )
    ranked = sorted(entries, key=lambda entry: hashlib.sha256(entry.record.id.encode()).digest())
    held = {entry.record.id for entry in ranked[:num]}
    return (
        tuple(entry for entry in entries if entry.record.id not in held),
        tuple(entry for entry in entries if entry.record.id in held),
    )


def turns(shares: Sequence[float]) -> Iterator[int]:
    """Which source each record comes from: after any number of turns, each has had its share of them to within
    less than one (R. Tijdeman, "The chairman assignment problem", 1980)."""
    if len(shares) == 1:
        while True:
            yield 0
    exact = [Fraction(share).limit_denominator(10**6) for share in shares]
    exact = [share / sum(exact) for share in exact]
    slack = Fraction(1, 2 * len(shares) - 2)
    taken = [0] * len(shares)
    for turn in count(1):
        owed = [share * turn - had for share, had in zip(exact, taken, strict=True)]
        due = [number for number, debt in enumerate(owed) if debt >= slack]
        # Among those that may, the one that must soonest.
        chosen = min(due, key=lambda number: (1 - slack - owed[number]) / exact[number])
        taken[chosen] += 1
        yield chosen


def drawn_caption(
    caption_mix: float, caption_dropout: float = 0.0, *, seed: int, step: int, place: int
) -> str:
    """The kind of caption at a place of a step's batch: `DROPPED` with probability `caption_dropout`, else "original"
    with probability `caption_mix`."""
    key = np.random.SeedSequence((seed, step, place, CAPTION))
    mix, dropout = np.random.Generator(np.random.Philox(key)).random(2)
    return DROPPED if dropout < caption_dropout else "original" if mix < caption_mix else "detailed"


def _shuffled(start: int, length: int, *, seed: int, number: int) -> Iterator[int]:
    """The numbers of one source's entries, epoch after epoch."""
    for epoch in count():
        order = np.random.default_rng([seed, epoch, number]).permutation(length)
        yield from (start + order).tolist()


def _only(source: Source, held: set[str], inside: bool) -> Source:
    kept = tuple(entry for entry in source.entries if (entry.record.id in held) == inside)
    return replace(source, entries=kept)

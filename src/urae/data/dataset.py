"""The order in which records are trained on.

Records are shuffled anew each epoch by (seed, epoch) and dealt into one queue per bucket; a queue that holds
a batch becomes one. What is left in a queue stays there for the next epoch, so every record is seen equally
often at any batch size, and every batch has one shape. The order is a function of the seed alone: a position
in it is the number of batches taken.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch.utils.data

from urae.data.cache import Cache, Entry, Sample
from urae.resolution import Size

__all__ = ["Dataset", "hold_out"]


@dataclass(frozen=True)
class Dataset(torch.utils.data.Dataset):
    """The entries of a cache by number."""

    cache: Cache
    entries: tuple[Entry, ...]

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> Sample:
        return self.cache.load(self.entries[index])

    def batches(self, batch_size: int, *, seed: int) -> Iterator[list[int]]:
        """Numbers of entries, batch after batch, each of one bucket, without end."""
        queues: dict[Size, list[int]] = defaultdict(list)
        for index in self._shuffled(seed):
            queue = queues[self.entries[index].bucket]
            queue.append(index)
            if len(queue) == batch_size:
                yield queue.copy()
                queue.clear()

    def _shuffled(self, seed: int) -> Iterator[int]:
        epoch = 0
        while True:
            yield from np.random.default_rng([seed, epoch]).permutation(len(self)).tolist()
            epoch += 1


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

"""Near-duplicates by perceptual hash, among millions.

Two hashes that differ in at most n bits agree in at least one of n + 1 bands of their bits. So each hash is filed
under its bands, and compared with those that share one: with 6 bits and a million images some 14 thousand
comparisons instead of a million, and not one pair is missed.
"""

from __future__ import annotations

from collections import defaultdict

__all__ = ["Hashes"]

BITS = 64


class Hashes:
    """Hashes with their names, found by likeness."""

    def __init__(self, distance: int) -> None:
        """distance: bits in which two hashes may differ, 0 to 63."""
        self.distance = distance
        edges = [band * BITS // (distance + 1) for band in range(distance + 2)]
        self.bands = [(low, (1 << (high - low)) - 1) for low, high in zip(edges, edges[1:], strict=False)]
        self.filed: list[dict[int, list[tuple[int, str]]]] = [defaultdict(list) for _ in self.bands]

    def add(self, hash: int, name: str) -> None:
        """File a hash."""
        for filed, key in zip(self.filed, self._keys(hash), strict=True):
            filed[key].append((hash, name))

    def nearest(self, hash: int) -> tuple[int, str] | None:
        """Bits of difference and name of the likest hash, None where none is near enough. Of equals the first
        filed."""
        near = [
            ((hash ^ other).bit_count(), name)
            for filed, key in zip(self.filed, self._keys(hash), strict=True)
            for other, name in filed.get(key, ())
        ]
        best = min(near, key=lambda found: found[0], default=None)
        return best if best and best[0] <= self.distance else None

    def _keys(self, hash: int) -> list[int]:
        return [(hash >> low) & mask for low, mask in self.bands]

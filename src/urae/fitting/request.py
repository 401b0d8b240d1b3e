"""What is asked when a policy is to be chosen: the fields are the options of `urae policy fit`. Nothing here imports
torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from urae.execution.choices import BaseWeights
from urae.resolution import check_size

__all__ = ["RULES", "FittingRequest"]

RULES = ("linear", "theta", "clipped", "ntk", "yarn", "dype", "dype_ntk")
"""What may be done to the positions; stock positions are always measured beside them."""


@dataclass(frozen=True, kw_only=True)
class FittingRequest:
    """On which pictures policies are measured, which ones, and at which noise levels.

    Raises ValueError for a value out of range and for a setting that would have no effect.
    """

    images: str
    """A few dozen large captioned pictures, as in training: a folder, a manifest, a cache, or scenes such as
    mini:clean:24."""
    size: int
    """Side, px, of the square with the area of the pictures to be drawn; pictures keep their shape."""
    pictures: int = field(default=32, metadata={"min": 6})
    """The most that are measured, chosen by the hash of their content."""
    rules: Sequence[str] = field(default=RULES, metadata={"option": "--rule"})
    """linear, theta, clipped, ntk, yarn, dype or dype_ntk; repeat for several; all by default."""
    factors: Sequence[float] = field(default=(1.0,), metadata={"option": "--factor"})
    """On the scale of each rule, which is the size over the native size; repeat for several."""
    sigmas: Sequence[float] = field(default=(0.2, 0.5, 0.8, 0.9, 0.97), metadata={"option": "--sigma"})
    """Noise levels between 0 and 1; repeat for several."""
    high: float = 0.8
    """The noise level from which on errors decide: those below tell of texture and rank layouts wrongly."""
    stop_early: bool = True
    """Measure a policy no further once it is surely worse than another."""
    base_weights: BaseWeights = "as_loaded"
    """How the transformer holds its matrices: as they were loaded, or rounded."""
    swap_blocks: int = field(default=0, metadata={"min": 0})
    """Blocks whose weights stay in the host's memory and come to the GPU while they run."""
    cache: str = ""
    """A folder for what is encoded of the pictures; by default it lies beside them."""

    def __post_init__(self) -> None:
        check_size(self.size)
        for name in ("rules", "factors", "sigmas"):
            object.__setattr__(self, name, tuple(dict.fromkeys(getattr(self, name))))
        if unknown := [rule for rule in self.rules if rule not in RULES]:
            raise ValueError(f"rule is {unknown[0]!r}: expected one of {', '.join(RULES)}")
        if wrong := [factor for factor in self.factors if not factor > 0]:
            raise ValueError(f"factor is {wrong[0]}: expected a number above 0, such as 1.5")
        if self.rules and not self.factors:
            raise ValueError("there is no factor: give at least one, such as 1")
        if wrong := [sigma for sigma in self.sigmas if not 0 < sigma < 1]:
            raise ValueError(f"sigma is {wrong[0]}: expected a noise level between 0 and 1, such as 0.9")
        if not any(sigma >= self.high for sigma in self.sigmas):
            raise ValueError(
                f"no sigma is {self.high:g} or above, and those decide: give one such as 0.9, or lower high"
            )
        if self.pictures < 6:
            raise ValueError(
                f"pictures is {self.pictures}: expected 6 or more, since fewer show no difference"
            )

    @property
    def deciding(self) -> tuple[int, ...]:
        """Places of the noise levels that decide."""
        return tuple(place for place, sigma in enumerate(self.sigmas) if sigma >= self.high)

"""What was measured, and what it says: a policy, a table, a page.

Policies that dropped out were measured on fewer pictures, so plain means would not compare. Each number of theirs is
the chosen policy's mean plus the paired difference over the pictures that both have.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property

from urae.fitting.candidates import STOCK, rule_of
from urae.fitting.chart import chart_of
from urae.io import Markdown, markdown_table
from urae.pages import html_page
from urae.resolution import ResolutionPolicy
from urae.statistics.intervals import Comparison, adjusted, compare, mean

__all__ = ["Errors", "FittingResult", "RankedPolicy", "score"]

Errors = dict[str, dict[str, tuple[float, ...]]]
"""Candidate -> picture -> mean squared error of the velocity at each noise level."""


def score(errors: Sequence[float], deciding: Sequence[int]) -> float:
    """The mean over the noise levels that decide."""
    return sum(errors[place] for place in deciding) / len(deciding)


@dataclass(frozen=True, kw_only=True)
class RankedPolicy:
    """One candidate in the table."""

    name: str
    pictures: int
    error: float
    """Over the noise levels that decide."""
    above: Comparison | None
    """Less the chosen policy's error, paired, Holm's correction over the table; None for the chosen policy itself."""
    levels: tuple[float, ...]
    """At each noise level."""
    stopped: bool

    @property
    def verdict(self) -> str:
        if self.above is None:
            return "chosen"
        if self.stopped:
            return "surely worse, stopped" if self.name != STOCK else "surely worse"
        return "surely worse" if self.above.real else "not told apart"


@dataclass(frozen=True, kw_only=True)
class FittingResult:
    """Errors of every candidate, and the choice that they lead to."""

    size: int
    scale: float
    """Size over native size."""
    default: str
    """Name of the candidate that a user gets without asking; "" where it is none of them."""
    sigmas: tuple[float, ...]
    deciding: tuple[int, ...]
    candidates: Mapping[str, ResolutionPolicy]
    errors: Errors
    worse: Mapping[str, int]
    """Candidate that is surely worse than another -> pictures after which that was sure."""

    @cached_property
    def best(self) -> str:
        """The candidate of the least mean error among those that were measured to the end."""
        return min((name for name in self.candidates if name not in self.worse), key=self._mean)

    @cached_property
    def chosen(self) -> str:
        """The best candidate; the default in its place where the two are not told apart."""
        is_tied = self.default in self.candidates and self.default not in {self.best, *self.worse}
        return self.default if is_tied and not self._above(self.best)[self.default].real else self.best

    @property
    def policy(self) -> ResolutionPolicy:
        """To draw and to train under."""
        return self.candidates[self.chosen]

    @cached_property
    def ranking(self) -> list[RankedPolicy]:
        """Every candidate, the least error first."""
        above = self._above(self.chosen)
        made = [
            RankedPolicy(
                name=name,
                pictures=len(self.errors[name]),
                error=self.level(name, self.deciding),
                above=above.get(name),
                levels=tuple(self.level(name, (place,)) for place in range(len(self.sigmas))),
                stopped=name in self.worse,
            )
            for name in self.candidates
        ]
        return sorted(made, key=lambda row: row.error)

    def scores(self, name: str, places: Sequence[int] = ()) -> dict[str, float]:
        """Picture -> the candidate's error over some noise levels, by default those that decide."""
        return {
            picture: score(values, places or self.deciding) for picture, values in self.errors[name].items()
        }

    def level(self, name: str, places: Sequence[int]) -> float:
        """A candidate's mean error over some noise levels, comparable with those of the others."""
        own, best = self.scores(name, places), self.scores(self.chosen, places)
        return _mean(best) + _mean(own) - _mean(_only(best, own))

    def difference(self, row: RankedPolicy) -> str:
        """How far a candidate's error is above that of the chosen one, of which 100% is the mean."""
        if row.above is None:
            return ""
        whole, found = self._mean(self.chosen), row.above.difference
        return f"{found.value / whole:+.1%} [{found.low / whole:+.1%}, {found.high / whole:+.1%}]"

    def to_markdown(self) -> str:
        """The table and the sentences below it."""
        levels = [f"{sigma:g}" for sigma in self.sigmas]
        header = ["policy", self.deciding_text, "above the chosen", *levels, "pictures", ""]
        rows = [
            [
                Markdown(f"**{row.name}**") if row.name == self.chosen else row.name,
                f"{row.error:.4f}",
                Markdown(self.difference(row)),
                *(f"{value:.3f}" for value in row.levels),
                row.pictures,
                row.verdict,
            ]
            for row in self.ranking
        ]
        table = markdown_table(header, rows, right=range(1, len(header) - 1))
        return "\n\n".join([table, *self.notes]) + "\n"

    def to_html(self) -> str:
        """One page without outside parts: the choice, the curves by noise level, the table."""
        return html_page(
            "urae.fitting",
            "report.html.j2",
            result=self,
            chart=chart_of(self.curves, self.sigmas, self.deciding),
            settings=json.dumps(self.policy.to_dict(), indent=1),
        )

    def to_json(self) -> str:
        """All of it, each picture's errors too."""
        described = {
            "chosen": self.chosen,
            "size": self.size,
            "scale": self.scale,
            "default": self.default,
            "sigmas": self.sigmas,
            "deciding": [self.sigmas[place] for place in self.deciding],
            "candidates": {name: policy.to_dict() for name, policy in self.candidates.items()},
            "ranking": [{**asdict(row), "verdict": row.verdict} for row in self.ranking],
            "errors": self.errors,
        }
        return json.dumps(described, indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    @property
    def deciding_text(self) -> str:
        return f"error from sigma {min(self.sigmas[place] for place in self.deciding):g} on"

    @property
    def notes(self) -> list[str]:
        """What the choice rests on, and how sure it is."""
        chosen = mean(self.scores(self.chosen))
        ties = [row.name for row in self.ranking if row.verdict == "not told apart"]
        notes = [
            f"Chosen: {self.chosen}, with a mean {self.deciding_text} of {chosen.value:.4f} "
            f"[{chosen.low:.4f}, {chosen.high:.4f}] over {chosen.count} pictures.",
            f"Not told apart from it: {', '.join(ties)}." if ties else "Every other policy is surely worse.",
        ]
        if self.chosen != self.best:
            notes.append(f"The least error is that of {self.best}; where it is not sure, the default stays.")
        elif self.default and self.default != self.chosen:
            row = next(row for row in self.ranking if row.name == self.default)
            notes.append(
                f"The default policy for this size is {self.default}: {row.verdict}, {self.difference(row)}."
            )
        return [
            *notes,
            "Differences are paired over pictures, with 95% bootstrap intervals; surely worse means a sign test with "
            "Holm's correction, or the sequential one that stops a policy early.",
            "The timestep shift is the checkpoint's own: at a fixed noise level it acts on nothing.",
        ]

    @property
    def curves(self) -> dict[str, list[Comparison]]:
        """The best candidate of each rule -> its error less that of stock positions at each noise level, paired."""
        best: dict[str, str] = {}
        for row in self.ranking:
            best.setdefault(rule_of(self.candidates[row.name]), row.name)
        return {name: self._against_stock(name) for name in best.values() if name != STOCK}

    def _against_stock(self, name: str) -> list[Comparison]:
        places = [(place,) for place in range(len(self.sigmas))]
        own = [self.scores(name, place) for place in places]
        return [
            compare(mine, _only(self.scores(STOCK, place), mine))
            for mine, place in zip(own, places, strict=True)
        ]

    def _above(self, reference: str) -> dict[str, Comparison]:
        """Every other candidate against one that was measured to the end."""
        best = self.scores(reference)
        others = {name: self.scores(name) for name in self.candidates if name != reference}
        return adjusted({name: compare(own, _only(best, own)) for name, own in others.items()})

    def _mean(self, name: str) -> float:
        return _mean(self.scores(name))


def _mean(scores: Mapping[str, float]) -> float:
    return sum(scores.values()) / len(scores)


def _only(scores: Mapping[str, float], there: Mapping[str, float]) -> dict[str, float]:
    """The scores of the pictures that the other has too."""
    return {picture: scores[picture] for picture in there}

"""What the answers add up to: preferences, a ranking, scores, and how far the judge can be trusted.

Each pair was shown in both orders. The same winner twice is a win, anything else a tie: a judge that always takes
the first picture ends at 50% with a first-slot rate of 100%, and says nothing about the candidates. An invalid
answer makes its pair or score invalid; these are counted beside every number.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import fmean
from typing import Any

from urae.io import Markdown, markdown_table
from urae.io import escape_markdown as escape
from urae.judge.journal import Answers
from urae.judge.plan import JudgingPlan
from urae.statistics import Column, Interval, Table, by_prompt, holm, mean, rank, sign_test, tabulate, wilson
from urae.statistics.intervals import MIN_PROMPTS, least_prompts

__all__ = ["Preference", "Verdicts", "count_verdicts"]

HEAD = (
    *("aspect", "candidate", "against", "win / tie / loss", "invalid"),
    *("win rate", "p (Holm)", "first slot", "consistent"),
)


@dataclass(frozen=True, kw_only=True)
class Preference:
    """One candidate against another in one aspect, counted in pictures; statistics are over prompts."""

    aspect: str
    candidate: str
    against: str
    wins: int
    ties: int
    """Called equal, or the winner changed with the order."""
    losses: int
    invalid: int
    """Pairs of which an answer could not be read; in no other count."""
    rate: Interval | None
    """Wins plus half the ties, bootstrap over prompts; None with fewer than six valid prompts."""
    p_value: float
    """Exact sign test over prompts."""
    p_adjusted: float
    """Holm's correction over the pairs of the aspect."""
    first_slot: Interval | None
    """Share of decided answers that took the picture shown first, 0.5 without position bias; Wilson's interval."""
    consistent: float
    """Share of valid pairs with the same verdict in both orders."""


@dataclass(frozen=True, kw_only=True)
class Verdicts:
    """The result of a plan's answers."""

    model: str
    models: Mapping[str, int]
    """What the server said it used, with the number of answers."""
    preferences: tuple[Preference, ...]
    rankings: Mapping[str, Mapping[str, Interval]]
    """Aspect -> candidate -> Bradley-Terry strength in log-odds, for more than two candidates."""
    scores: Table | None
    """Mean scores, 0 to 100; None where no scores were asked for, or no aspect has six prompts with valid ones."""
    invalid_scores: Mapping[str, Mapping[str, int]]
    """Aspect -> candidate -> pictures without a valid score; their prompts are left out of that column."""
    num_answers: int
    num_invalid: int
    """Answers that could not be read, including those that a second try made good."""
    usage: Mapping[str, int]
    """Tokens that the server counted, over all runs."""
    settings: Mapping[str, Any]

    def to_markdown(self) -> str:
        """A report of a page."""
        head = [f"# Verdicts of {escape(self.model)}", self._provenance()]
        parts = [*head, *self._preferences(), *self._rankings(), *self._scores()]
        return "\n\n".join(parts) + "\n"

    def to_json(self) -> str:
        """All of it, with the score of every prompt."""
        described = asdict(replace(self, scores=None))
        described["scores"] = json.loads(self.scores.to_json()) if self.scores else None
        return json.dumps(described, indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    def _provenance(self) -> str:
        models = ", ".join(f"{escape(name)} ({count})" for name, count in self.models.items())
        tokens = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in self.usage.items())
        return (
            f"{self.num_answers} answers by {models}; {self.num_invalid} of them could not be read. "
            f"{'Counted by the server: ' + tokens if tokens else 'The server counted no tokens'}."
        )

    def _preferences(self) -> list[str]:
        if not self.preferences:
            return []
        rows = [
            (
                p.aspect,
                p.candidate,
                p.against,
                f"{p.wins} / {p.ties} / {p.losses}",
                p.invalid,
                _percent(p.rate),
                f"{p.p_adjusted:.3g}",
                _percent(p.first_slot),
                f"{p.consistent:.0%}",
            )
            for p in self.preferences
        ]
        note = (
            "Each pair was shown in both orders; a tie is half a win. First slot: 50% without position bias."
        )
        return ["## Preferences", markdown_table(HEAD, rows), note, *self._too_few()]

    def _too_few(self) -> list[str]:
        """Where no preference can pass the test, that it cannot."""
        num_pairs = max(Counter(p.aspect for p in self.preferences).values())
        most, least = max(p.rate.count if p.rate else 0 for p in self.preferences), least_prompts(num_pairs)
        if most >= least:
            return []
        return [
            f"No preference of {num_pairs} pairs can be real on {most} prompts: it takes at least {least}."
        ]

    def _rankings(self) -> list[str]:
        if not self.rankings:
            return []
        rows = [
            (aspect, name, Markdown(f"{s.value:+z.2f} [{s.low:+z.2f}, {s.high:+z.2f}]"))
            for aspect, ranking in self.rankings.items()
            for name, s in ranking.items()
        ]
        return [
            "## Ranking (Bradley-Terry)",
            markdown_table(("aspect", "candidate", "strength, log-odds"), rows),
        ]

    def _scores(self) -> list[str]:
        missing = [
            f"{escape(name)} lacks {count} {escape(aspect)} scores that could not be read: prompts not in that column."
            for aspect, counts in self.invalid_scores.items()
            for name, count in counts.items()
            if count
        ]
        table = [self.scores.to_markdown().rstrip()] if self.scores else []
        return ["## Scores", *table, *missing] if table or missing else []


def count_verdicts(plan: JudgingPlan, answers: Answers, *, seed: int = 0) -> Verdicts:
    """Add up the answers (by key, as `read_journal` returns them) to a plan, which must all have been asked."""
    if pending := plan.pending(answers):
        raise ValueError(
            f"{len(pending)} of {len(plan.questions)} questions have not been asked: run the plan first"
        )
    outcomes = _outcomes(plan, answers)
    preferences = [
        _preference(plan, aspect, pair, outcomes[aspect, pair], seed)
        for aspect, pair in itertools.product(plan.aspects, plan.pairs)
    ]
    values = _score_values(plan, answers) if "score" in plan.kinds else {}
    used = {question.key for question in plan.questions}
    records = [record for key, tries in answers.items() if key in used for record in tries]
    return Verdicts(
        model=plan.endpoint.model,
        models=dict(Counter(record["model"] for record in records)),
        preferences=tuple(_corrected(preferences)),
        rankings=_rankings_of(plan, outcomes, seed),
        scores=_score_table(plan, values, seed),
        invalid_scores={
            aspect: {name: sum(score is None for score in row.values()) for name, row in rows.items()}
            for aspect, rows in values.items()
        },
        num_answers=len(records),
        num_invalid=_num_invalid(plan, answers),
        usage=dict(sum((Counter(record["usage"]) for record in records), Counter())),
        settings={
            "options": dict(plan.endpoint.options),
            "answers": plan.instructions.answers,
            "instructions": {kind: dict(plan.instructions.texts[kind]) for kind in plan.kinds},
            "view": asdict(plan.view),
        },
    )


@dataclass(frozen=True, kw_only=True)
class _BothOrders:
    """One pair on one item: the candidate's credit in both orders, None where an answer was invalid."""

    prompt: str
    shown_first: float | None
    shown_second: float | None

    @property
    def valid(self) -> bool:
        return self.shown_first is not None and self.shown_second is not None

    @property
    def credit(self) -> float:
        """1 or 0 where both orders name the same winner, else 0.5."""
        same = self.shown_first == self.shown_second
        return self.shown_first if same and self.shown_first is not None else 0.5

    @property
    def slots(self) -> list[float]:
        """For each decided answer, whether it took the first picture."""
        forth = [self.shown_first] if self.shown_first is not None else []
        back = [1 - self.shown_second] if self.shown_second is not None else []
        return [slot for slot in forth + back if slot != 0.5]


Outcomes = dict[tuple[str, tuple[str, str]], list[_BothOrders]]


def _outcomes(plan: JudgingPlan, answers: Answers) -> Outcomes:
    credit = {
        (question.aspect, question.item.id, question.shown): plan.read(question, answers)
        for question in plan.questions
        if question.kind == "pair"
    }
    outcomes: Outcomes = defaultdict(list)
    for aspect, (a, b), item in itertools.product(plan.aspects, plan.pairs, plan.items):
        back = credit[aspect, item.id, (b, a)]
        outcome = _BothOrders(
            prompt=item.prompt,
            shown_first=credit[aspect, item.id, (a, b)],
            shown_second=None if back is None else 1 - back,
        )
        outcomes[aspect, (a, b)].append(outcome)
    return outcomes


def _preference(
    plan: JudgingPlan, aspect: str, pair: tuple[str, str], outcomes: Sequence[_BothOrders], seed: int
) -> Preference:
    valid = [outcome for outcome in outcomes if outcome.valid]
    credits, prompts = [outcome.credit for outcome in valid], _by_prompt(valid)
    slots = [slot for outcome in outcomes for slot in outcome.slots]
    p_value = sign_test(sum(v > 0.5 for v in prompts.values()), sum(v < 0.5 for v in prompts.values()))
    return Preference(
        aspect=aspect,
        candidate=pair[0],
        against=pair[1],
        wins=credits.count(1),
        ties=credits.count(0.5),
        losses=credits.count(0),
        invalid=len(outcomes) - len(valid),
        rate=mean(prompts, bounds=(0.0, 1.0), seed=seed) if len(prompts) >= MIN_PROMPTS else None,
        p_value=p_value,
        p_adjusted=p_value,
        first_slot=wilson(slots.count(1), len(slots)) if slots else None,
        consistent=fmean([o.shown_first == o.shown_second for o in valid]) if valid else 0.0,
    )


def _by_prompt(valid: Sequence[_BothOrders]) -> dict[str, float]:
    return by_prompt([outcome.prompt for outcome in valid], [outcome.credit for outcome in valid])


def _corrected(preferences: Sequence[Preference]) -> list[Preference]:
    groups: dict[str, list[Preference]] = defaultdict(list)
    for preference in preferences:
        groups[preference.aspect].append(preference)
    return [
        replace(preference, p_adjusted=p)
        for group in groups.values()
        for preference, p in zip(group, holm([member.p_value for member in group]), strict=True)
    ]


def _rankings_of(plan: JudgingPlan, outcomes: Outcomes, seed: int) -> dict[str, dict[str, Interval]]:
    if len(plan.candidates) < 3 or not plan.pairs:
        return {}
    rankings = {}
    for aspect in plan.aspects:
        valid = {pair: _by_prompt([o for o in outcomes[aspect, pair] if o.valid]) for pair in plan.pairs}
        # A pair without enough valid prompts may leave a candidate without games: then there is no ranking.
        if all(len(prompts) >= MIN_PROMPTS for prompts in valid.values()):
            rankings[aspect] = rank(valid, seed=seed)
    return rankings


ScoreValues = dict[str, dict[str, dict[str, float | None]]]
"""Aspect -> candidate -> item -> score."""


def _score_values(plan: JudgingPlan, answers: Answers) -> ScoreValues:
    values: ScoreValues = {aspect: {name: {} for name in plan.candidates} for aspect in plan.aspects}
    for question in plan.questions:
        if question.kind == "score":
            values[question.aspect][question.shown[0]][question.item.id] = plan.read(question, answers)
    return values


def _score_table(plan: JudgingPlan, values: ScoreValues, seed: int) -> Table | None:
    scores: dict[str, dict[str, dict[str, float]]] = {name: {} for name in plan.candidates}
    columns = []
    for aspect, rows in values.items():
        items = [item for item in plan.items if all(row[item.id] is not None for row in rows.values())]
        if len({item.prompt for item in items}) < MIN_PROMPTS:
            continue
        columns.append(Column(name=aspect, direction="higher", digits=1))
        for name, row in rows.items():
            valid = [(item.prompt, score) for item in items if (score := row[item.id]) is not None]
            scores[name][aspect] = by_prompt(*zip(*valid, strict=True))
    return tabulate(scores, columns=columns, seed=seed) if columns else None


def _num_invalid(plan: JudgingPlan, answers: Answers) -> int:
    different = {question.key: question for question in plan.questions}
    return sum(
        plan.read(question, {key: [record]}) is None
        for key, question in different.items()
        for record in answers.get(key, ())
    )


def _percent(interval: Interval | None) -> str:
    if interval is None:
        return "too few valid answers"
    return Markdown(f"{interval.value:.1%} [{interval.low:.1%}, {interval.high:.1%}]")

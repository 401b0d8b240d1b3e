"""The report of a study: Markdown to paste, JSON to compute with, a page with the pictures, and every vote as CSV.

Written while raters are still voting, it says how far they are.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path

from urae.io import Markdown, markdown_table, read_picture, write_text
from urae.io import escape_markdown as escape
from urae.pages import data_uri, html_page, thumbnail
from urae.statistics import Interval
from urae.study.ballots import BallotBox
from urae.study.manifest import Study
from urae.study.outcome import AspectOutcome, Outcome

__all__ = ["to_csv", "to_html", "to_markdown", "write_report"]

COLUMNS = (
    *("rater", "position", "item", "prompt", "aspect", "choice", "slot", "shown"),
    *("zoomed", "opened", "cast_at", "changes"),
)
SIDE = 240
"""Pixels of the pictures on the page."""
FORMULA = ("=", "+", "-", "@", "\t", "\r")
NOTE = (
    "Intervals are of {confidence:.0%}, over other raters and other prompts (both resampled). A bold candidate is "
    "significantly better than every other: interval, sign test over prompts and sign test over raters agree, after "
    "Holm's correction over the pairs."
)


def write_report(study: Study, outcome: Outcome, out: Path | str) -> list[Path]:
    """Write report.md, report.json, report.html and votes.csv into the folder `out`."""
    texts = {
        "report.md": to_markdown(outcome),
        "report.json": outcome.to_json(),
        "report.html": to_html(study, outcome),
        "votes.csv": to_csv(study),
    }
    for name, text in texts.items():
        write_text(Path(out) / name, text)
    return [Path(out) / name for name in texts]


def to_markdown(outcome: Outcome) -> str:
    """A page or two."""
    parts = [f"# {escape(outcome.title)}", _summary(outcome), _note(outcome)]
    for aspect in outcome.aspects.values():
        parts += [f"## {escape(aspect.title)}", _standings(aspect), _preferences(aspect), *_sentences(aspect)]
    return "\n\n".join([*parts, "## Raters", _raters(outcome)]) + "\n"


def to_html(study: Study, outcome: Outcome) -> str:
    """One page without outside parts: bars with intervals, and the pictures with what each was chosen for."""
    return html_page(
        "urae.study",
        "report.html.j2",
        outcome=outcome,
        summary=_summary(outcome),
        note=_note(outcome),
        sentences={name: _sentences(aspect) for name, aspect in outcome.aspects.items()},
        items=[study.item[item] for item in outcome.choices],
        thumbnails={
            name: data_uri(thumbnail(read_picture(study.previews[name]), SIDE), quality=85)
            for item in outcome.choices
            for name in study.item[item].pictures
        },
        percent=_percent,
        side=SIDE,
    )


def to_csv(study: Study) -> str:
    """Every vote, one row each, with whose picture it was for. `shown` lists the candidates as they stood."""
    with BallotBox(study) as box:
        votes = box.votes()
    stream = io.StringIO()
    writer = csv.writer(stream)
    writer.writerow(COLUMNS)
    for vote in votes:
        item = study.item[vote.item]
        row = (
            *(vote.rater, vote.position, vote.item, item.prompt, vote.aspect, item.pictures[vote.picture]),
            *(vote.slots.index(vote.picture) + 1, "|".join(item.pictures[name] for name in vote.slots)),
            *(int(vote.zoomed), vote.opened, vote.cast_at, vote.changes),
        )
        writer.writerow([_inert(cell) for cell in row])
    return stream.getvalue()


def _inert(cell: object) -> object:
    """A spreadsheet must not take a prompt for a formula."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(FORMULA) else cell


def _summary(outcome: Outcome) -> str:
    votes = sum(aspect.num_votes for aspect in outcome.aspects.values())
    return (
        f"{votes} votes by {len(outcome.raters)} of {outcome.num_invited} invited raters, {outcome.num_submitted} of "
        f"them done, on {outcome.num_items} sets of {len(outcome.candidates)} pictures of {outcome.num_prompts} "
        "prompts."
    )


def _note(outcome: Outcome) -> str:
    return NOTE.format(confidence=outcome.confidence)


def _standings(aspect: AspectOutcome) -> str:
    rows = [
        (
            Markdown(f"**{escape(name)}**") if standing.best else name,
            standing.votes,
            f"{standing.share:.1%}",
            _range(standing.interval),
        )
        for name, standing in aspect.standings.items()
    ]
    return markdown_table(("candidate", "votes", "share", "interval"), rows)


def _preferences(aspect: AspectOutcome) -> str:
    rows = [
        (
            preference.candidate,
            preference.against,
            _percent(preference.difference) if preference.difference else "too few raters or prompts",
            f"{preference.p_adjusted:.3g}",
            "yes" if preference.real else "no",
        )
        for preference in aspect.preferences
    ]
    head = ("candidate", "against", "difference of shares", "p (Holm)", "significant")
    return markdown_table(head, rows)


def _sentences(aspect: AspectOutcome) -> list[str]:
    """Agreement and habit, in words."""
    found = aspect.agreement
    if found.pairs is None:
        agreed = "No item has two votes yet, so there is nothing to agree on."
    else:
        agreed = f"Two raters of one set chose the same picture in {found.pairs:.0%} of the cases"
        if found.alpha is not None:
            within = f" [{found.low:z.2f}, {found.high:z.2f}]" if found.low is not None else ""
            agreed += (
                f"; Krippendorff's alpha is {found.alpha:z.2f}{within} (0 is chance, 1 is full agreement)"
            )
        agreed += "."
    places = ", ".join(f"{place}: {_percent(share)}" for place, share in enumerate(aspect.slots, 1))
    return [agreed, f"By place on the screen, {1 / len(aspect.slots):.0%} each without a habit: {places}."]


def _raters(outcome: Outcome) -> str:
    head = ("rater", "votes", "done", "median seconds a set", "looked at 100%", "favourite place")
    rows = [
        (
            rater.name,
            rater.num_votes,
            "yes" if rater.submitted else "no",
            f"{rater.seconds:.0f}",
            f"{rater.zoomed:.0%}",
            f"{rater.favourite_slot:.0%}",
        )
        for rater in outcome.raters
    ]
    return markdown_table(head, rows)


def _range(interval: Interval | None) -> str:
    if interval is None:
        return "too few raters or prompts"
    return Markdown(f"[{interval.low:z.1%}, {interval.high:z.1%}]")


def _percent(interval: Interval) -> str:
    return Markdown(f"{interval.value:z.1%} {_range(interval)}")

"""What votes add up to: checked against worked examples, dense sums and known truths."""

from __future__ import annotations

import csv
import io
import json
import math
import time

import numpy as np
import pytest
from study_material import HOSTILE, IDS, NAMES, PROMPTS, small_study

from urae.statistics import agreement, krippendorff_alpha, wilson
from urae.study.ballots import BallotBox
from urae.study.manifest import ASPECTS
from urae.study.outcome import count_votes, two_way_interval
from urae.study.report import to_csv, to_html, to_markdown, write_report

# --- agreement


def counts_of(*raters: str) -> np.ndarray:
    """(items, values) from one text a rater, "." for no answer."""
    values = sorted(set("".join(raters)) - {"."})
    return np.array([[item.count(value) for value in values] for item in zip(*raters, strict=True)])


def test_alpha_of_krippendorffs_own_example():
    """Computing Krippendorff's Alpha-Reliability (2011), section C: four observers, missing data, 0.743."""
    counts = counts_of("123321412...", "1233224125.3", ".3332342251.", "12332441251.")
    assert krippendorff_alpha(counts) == pytest.approx(0.743, abs=5e-4)


def test_alpha_is_one_for_agreement_zero_for_chance_and_undefined_without_variety():
    assert krippendorff_alpha(counts_of("abcabc", "abcabc", "abcabc")) == 1
    chance = np.random.default_rng(0).multinomial(10, [0.5, 0.3, 0.2], size=3000)
    assert krippendorff_alpha(chance) == pytest.approx(0, abs=0.005)
    assert math.isnan(krippendorff_alpha(counts_of("aaaa", "aaaa")))
    # Always different: below chance.
    assert krippendorff_alpha(counts_of("abababab", "babababa")) < -0.8


def test_agreement_beside_alpha():
    counts = counts_of("aabbccab", "aabbccba", "aab.....")
    found = agreement(counts, range(8))
    assert found.pairs == pytest.approx(6 / 8)
    assert found.num_items == 8
    assert found.low <= found.alpha <= found.high
    # Six prompts at least, and two items of one prompt are one.
    assert agreement(counts, [0, 0, 1, 1, 2, 2, 3, 4]).low is None
    assert agreement(counts, [0, 0, 1, 1, 2, 2, 3, 4]).alpha == found.alpha
    lonely = agreement(np.eye(3), range(3))
    assert (lonely.alpha, lonely.pairs, lonely.num_items) == (None, None, 0)
    assert agreement(counts_of("aaaaaaa", "aaaaaaa"), range(7)).alpha is None


# --- shares


def drawn_votes(rng, raters, prompts, *, taste, content):
    """Votes (raters, prompts, 2) whose chance for the first is spread over raters and over prompts."""
    logit = rng.normal(0, taste, (raters, 1)) + rng.normal(0, content, (1, prompts))
    first = rng.random((raters, prompts)) < 1 / (1 + np.exp(-logit))
    return np.stack([first, ~first], axis=-1).astype(float)


@pytest.mark.parametrize(("taste", "content"), [(0, 0), (1.5, 0), (0, 1.5), (1.5, 1.5)])
def test_intervals_hold_the_truth(taste, content):
    """95% of the time at least, whatever makes votes alike; Wilson's would not."""
    rng, held, wilson_held = np.random.default_rng(1), 0, 0
    for number in range(200):
        counts = drawn_votes(rng, 12, 16, taste=taste, content=content)
        interval = two_way_interval(counts, np.array([1.0, 0.0]), resamples=1000, seed=number)
        held += interval.low <= 0.5 <= interval.high
        wilson_held += abs(interval.value - 0.5) <= 1.96 * math.sqrt(0.25 / (12 * 16))
    # Of 200, 95% less two standard deviations; and not by being wide: the plain bootstrap holds 197 to 200.
    assert 184 <= held <= 197
    if taste or content:
        assert wilson_held < 180


def test_a_share_is_that_of_all_votes_and_a_difference_is_that_of_shares():
    counts = drawn_votes(np.random.default_rng(0), 8, 9, taste=1, content=1)
    counts[0, :4] = 0
    first, second = (two_way_interval(counts, unit) for unit in np.eye(2))
    both = two_way_interval(counts, np.array([1.0, -1.0]))
    assert first.value == pytest.approx(counts[..., 0].sum() / counts.sum())
    assert first.count == 8 * 9 - 4
    # The same draws: two shares that add to one mirror each other.
    assert (second.low, second.high) == pytest.approx((1 - first.high, 1 - first.low))
    assert (both.low, both.high) == pytest.approx((2 * first.low - 1, 2 * first.high - 1))
    assert two_way_interval(counts[:5], np.eye(2)[0]) is None
    assert two_way_interval(counts[:, :5], np.eye(2)[0]) is None


def test_votes_that_all_agree_leave_a_doubt():
    """Eight raters, seven prompts: no more certain than seven of seven; and so is the difference to nobody's vote."""
    counts = np.ones((8, 7, 1)) * np.array([1.0, 0.0])
    share, other, difference = (
        two_way_interval(counts, np.array(w)) for w in ([1.0, 0.0], [0.0, 1.0], [1.0, -1.0])
    )
    assert (share.low, share.value, share.high) == (wilson(7, 7).low, 1, 1)
    assert (other.low, other.high) == pytest.approx((0, 1 - share.low))
    assert (difference.low, difference.high) == pytest.approx((2 * share.low - 1, 1))
    assert share.count == 56


def test_full_agreement_leaves_a_doubt_too():
    counts = np.array([[3, 0], [0, 3]] * 4)
    found = agreement(counts, range(8))
    assert (found.alpha, found.high) == (1, 1)
    assert 0.2 < found.low < 0.6


def test_raters_and_prompts_that_never_met_do_not_break_it():
    counts = np.eye(7)[..., None] * np.array([1.0, 0.0])
    interval = two_way_interval(counts, np.array([1.0, 0.0]), resamples=2000)
    assert (interval.value, interval.high) == (1, 1)
    assert interval.low == wilson(7, 7).low


# --- a whole study


def vote_all(study, choose, *, submit: bool = True) -> None:
    """Every rater votes: `choose(rater number, item, aspect)` names a candidate, or "" for none."""
    with BallotBox(study) as box:
        for number, rater in enumerate(box.raters()):
            for position in range(1, len(IDS) + 1):
                ballot = box.ballot(rater, position)
                names = {candidate: name for name, candidate in study.item[ballot.item].pictures.items()}
                for aspect in ASPECTS:
                    if candidate := choose(number, ballot.item, aspect.name):
                        box.vote(rater, position, aspect.name, names[candidate], zoomed=number % 2 == 0)
            if submit:
                box.submit(rater)


@pytest.fixture
def voted(drawn, tmp_path):
    """Seven raters. Overall, all but one prefer sharp; alignment is a matter of the prompt alone; the third aspect
    of the rater alone."""

    def choose(number, item, aspect):
        place = IDS.index(item)
        return {
            "overall": "sharp" if number < 6 else "blurred",
            "alignment": NAMES[place % 3],
            "aesthetics": NAMES[number % 3],
        }[aspect]

    study = small_study(drawn, tmp_path / "voted", num_raters=7)
    vote_all(study, choose)
    return study


def test_counts_shares_and_which_is_really_best(voted):
    outcome = count_votes(voted)
    overall, alignment, aesthetics = (outcome.aspects[aspect.name] for aspect in ASPECTS)
    assert {name: standing.votes for name, standing in overall.standings.items()} == {
        "sharp": 36,
        "blurred": 6,
        "enlarged": 0,
    }
    assert overall.standings["sharp"].share == 36 / 42
    assert overall.standings["sharp"].interval.value == pytest.approx(36 / 42)
    assert (outcome.num_prompts, outcome.num_items, outcome.num_invited, outcome.num_submitted) == (
        6,
        6,
        7,
        7,
    )
    # All six prompts, but one rater in seven disagrees: 6 to 1 is p = 0.125.
    against = {(p.candidate, p.against): p for p in overall.preferences}
    assert against["sharp", "blurred"].p_value == pytest.approx(0.125)
    assert against["sharp", "enlarged"].p_value == pytest.approx(2 / 2**6)
    assert against["sharp", "enlarged"].p_adjusted == pytest.approx(3 * 2 / 2**6)
    assert not any(standing.best for standing in overall.standings.values())
    for other in (alignment, aesthetics):
        assert {standing.votes for standing in other.standings.values()} <= {12, 14, 18}
        assert not any(preference.real for preference in other.preferences)


def test_agreement_tells_a_matter_of_prompts_from_a_matter_of_taste(voted):
    aspects = count_votes(voted).aspects
    assert aspects["alignment"].agreement.alpha == 1
    assert aspects["alignment"].agreement.pairs == 1
    assert aspects["aesthetics"].agreement.alpha < 0
    # Six of seven agree everywhere: by pairs 15 of 21, and for alpha no more than by chance.
    assert aspects["overall"].agreement.pairs == pytest.approx(15 / 21)
    assert aspects["overall"].agreement.alpha < 0


def test_a_clear_winner_is_marked(drawn, tmp_path):
    study = small_study(drawn, tmp_path / "clear", num_raters=8, prompts=PROMPTS)
    two = small_study({name: drawn[name] for name in NAMES[:2]}, tmp_path / "two", num_raters=8)
    for each in (study, two):
        vote_all(each, lambda number, item, aspect: "sharp")
    outcome = count_votes(two)
    assert outcome.aspects["overall"].standings["sharp"].best
    assert not outcome.aspects["overall"].standings["blurred"].best
    assert outcome.aspects["overall"].preferences[0].real
    assert "| **sharp** | 48 | 100.0% | [61.0%, 100.0%] |" in to_markdown(outcome)
    assert "Intervals are of 95%" in to_markdown(outcome)
    assert "Intervals are of 80%" in to_markdown(count_votes(two, confidence=0.8))
    # Among three pairs, six prompts that all agree are p = 0.031 x 3: not enough after the correction.
    assert not count_votes(study).aspects["overall"].standings["sharp"].best


def test_unfinished_studies_are_counted_as_far_as_they_are(study):
    with pytest.raises(ValueError, match="has no votes yet"):
        count_votes(study)
    vote_all(study, lambda n, item, aspect: "sharp" if n == 0 and aspect == "overall" else "", submit=False)
    outcome = count_votes(study)
    assert list(outcome.aspects) == ["overall"]
    assert outcome.aspects["overall"].standings["sharp"].interval is None
    assert outcome.aspects["overall"].preferences[0].difference is None
    assert not outcome.aspects["overall"].preferences[0].real
    assert [(rater.name, rater.num_votes, rater.submitted) for rater in outcome.raters] == [
        ("rater-01", 6, False)
    ]
    text = to_markdown(outcome)
    assert "6 votes by 1 of 2 invited raters, 0 of them done" in text
    assert "| sharp | 6 | 100.0% | too few raters or prompts |" in text
    assert "No item has two votes yet" in text
    json.loads(outcome.to_json())
    assert "too few raters or prompts" in to_html(study, outcome)


def test_habits_of_raters(study):
    """One always takes the first place and never looks closely."""
    begun = time.time()
    with BallotBox(study) as box:
        for position in range(1, len(IDS) + 1):
            for number, rater in enumerate(box.raters()):
                slots = box.ballot(rater, position).slots
                box.vote(
                    rater, position, "overall", slots[position % 3 if number else 0], zoomed=bool(number)
                )
    outcome = count_votes(study)
    lazy, careful = outcome.raters
    assert (lazy.favourite_slot, lazy.zoomed) == (1, 0)
    assert (careful.favourite_slot, careful.zoomed) == (pytest.approx(1 / 3), 1)
    assert 0 <= lazy.seconds <= time.time() - begun + 0.001  # votes know their millisecond
    slots = outcome.aspects["overall"].slots
    assert [slot.value for slot in slots] == pytest.approx([8 / 12, 2 / 12, 2 / 12])
    assert slots[0].low > 1 / 3


def test_every_vote_is_exported_and_no_cell_is_a_formula(drawn, tmp_path):
    prompts = {**PROMPTS, IDS[0]: '=HYPERLINK("x","y")', IDS[1]: "+1", IDS[2]: "-1", IDS[3]: "@SUM(A1)"}
    study = small_study(drawn, tmp_path / "formula", prompts=prompts)
    vote_all(study, lambda number, item, aspect: NAMES[(number + IDS.index(item)) % 3])
    rows = list(csv.DictReader(io.StringIO(to_csv(study))))
    assert len(rows) == 2 * 6 * 3
    assert {row["prompt"] for row in rows} == {
        '\'=HYPERLINK("x","y")',
        "'+1",
        "'-1",
        "'@SUM(A1)",
        PROMPTS[IDS[4]],
        PROMPTS[IDS[5]],
    }
    for row in rows:
        assert not any(cell.startswith(("=", "+", "-", "@")) for cell in row.values())
        number = int(row["rater"][-2:]) - 1
        assert row["choice"] == NAMES[(number + IDS.index(row["item"])) % 3]
        assert row["shown"].split("|")[int(row["slot"]) - 1] == row["choice"]
        assert sorted(row["shown"].split("|")) == sorted(NAMES)


def test_the_report_is_written_whole_and_says_the_same_everywhere(voted, tmp_path):
    outcome = count_votes(voted)
    files = write_report(voted, outcome, tmp_path / "report")
    assert [path.name for path in files] == ["report.md", "report.json", "report.html", "votes.csv"]
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == sorted(
        path.name for path in files
    )
    shown = json.loads(files[1].read_text())
    share = shown["aspects"]["overall"]["standings"]["sharp"]
    assert share["votes"] == 36
    assert shown["choices"][IDS[1]]["alignment"] == {"sharp": 0, "blurred": 7, "enlarged": 0}
    assert shown["aspects"]["overall"]["preferences"][0]["real"] is False
    low, high = share["interval"]["low"], share["interval"]["high"]
    page, text = files[2].read_text(), files[0].read_text()
    assert f"| sharp | 36 | 85.7% | [{low:.1%}, {high:.1%}] |" in text
    assert f'title="85.7% [{low:.1%}, {high:.1%}]"' in page
    assert f"left: {100 * low:.2f}%; width: {100 * (high - low):.2f}%" in page
    assert page.count("data:image/jpeg") == len(IDS) * len(NAMES)
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "http" not in page.replace("http-equiv", "")
    assert HOSTILE not in text


def test_items_of_one_prompt_are_one_prompt(drawn, tmp_path):
    folders = {}
    for name in NAMES:
        folders[name] = tmp_path / name
        folders[name].mkdir()
        for item in IDS:
            for copy in "ab":
                (folders[name] / f"{item}{copy}.png").write_bytes((drawn[name] / f"{item}.png").read_bytes())
    prompts = {f"{item}{copy}": text for item, text in PROMPTS.items() for copy in "ab"}
    study = small_study(folders, tmp_path / "twice", prompts=prompts, num_raters=6)
    with BallotBox(study) as box:
        for rater in box.raters():
            for position in range(1, 13):
                ballot = box.ballot(rater, position)
                wanted = "sharp" if ballot.item.endswith("a") else "blurred"
                names = {candidate: name for name, candidate in study.item[ballot.item].pictures.items()}
                box.vote(rater, position, "overall", names[wanted])
    outcome = count_votes(study)
    assert (outcome.num_items, outcome.num_prompts) == (12, 6)
    standing = outcome.aspects["overall"].standings["sharp"]
    # Every prompt and every rater is at exactly one half, so there is nothing to vary: a share of six trials.
    assert standing.share == 0.5
    assert (standing.interval.low, standing.interval.high) == pytest.approx((0.305, 0.695), abs=1e-3)
    assert outcome.aspects["overall"].preferences[0].p_value == 1

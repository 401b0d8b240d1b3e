"""The ballot box: one vote for each question, of the pictures that were shown, by somebody who was invited."""

from __future__ import annotations

import pytest
from study_material import IDS, NAMES

from urae.study.ballots import BallotBox, VoteRefused, invite, read_invitations
from urae.study.manifest import ASPECTS


@pytest.fixture
def box(study):
    with BallotBox(study) as box:
        yield box


def test_every_rater_gets_every_item_once_in_an_order_of_their_own(study, box):
    invite(box, 8)
    raters = box.raters()
    assert [rater.name for rater in raters] == [f"rater-{n:02d}" for n in range(1, 11)]
    orders, slots = set(), set()
    for rater in raters:
        ballots = [box.ballot(rater, position) for position in range(1, len(IDS) + 1)]
        assert sorted(ballot.item for ballot in ballots) == sorted(IDS)
        for ballot in ballots:
            assert sorted(ballot.slots) == sorted(study.item[ballot.item].pictures)
            slots.add(tuple(study.item[ballot.item].pictures[name] for name in ballot.slots))
        orders.add(tuple(ballot.item for ballot in ballots))
    # 10 orders out of 720, and 60 draws from 6: that any of this fails by chance is less than one in 10,000.
    assert len(orders) > 5
    assert len(slots) == 6


def test_a_commit_waits_for_the_disk(box):
    """What a loss of power could take otherwise; a kill is tried in test_study_kill."""
    assert box._db.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    assert box._db.execute("PRAGMA synchronous").fetchone()[0] == 2


def test_the_database_does_not_hold_the_tokens(study, box):
    for token in read_invitations(study.folder).values():
        assert len(token) >= 22
        assert box.rater(token)
        for path in study.folder.glob("votes.sqlite*"):
            assert token.encode() not in path.read_bytes()


def test_who_was_not_invited_is_nobody(study, box):
    token = next(iter(read_invitations(study.folder).values()))
    stored = box._db.execute("SELECT token_hash FROM raters").fetchone()[0]
    for guess in ("", token[:-1], token + "x", token.swapcase(), stored, "' OR '1'='1", "rater-01", "%"):
        assert box.rater(guess) is None


def test_a_vote_may_be_changed_and_there_is_never_more_than_one(study, box):
    rater = box.raters()[0]
    first, second, _ = box.ballot(rater, 1).slots
    for picture, zoomed in ((first, False), (second, True), (second, False), (first, False), (first, False)):
        box.vote(rater, 1, "overall", picture, zoomed=zoomed)
    (vote,) = box.votes()
    assert (vote.picture, vote.changes, vote.zoomed) == (first, 2, True)
    assert box.ballot(rater, 1).choices == {"overall": first}
    assert vote.opened <= vote.cast_at


def test_votes_that_do_not_belong_are_refused(study, box):
    rater, other = box.raters()
    ballot = box.ballot(rater, 1)
    elsewhere = box.ballot(rater, 2).slots[0]
    for picture in (elsewhere, "sharp", "", ballot.slots[0].upper() + "x"):
        with pytest.raises(VoteRefused, match="no such picture is on this ballot"):
            box.vote(rater, 1, "overall", picture)
    for aspect in ("beauty", "", "Overall", "overall'; DROP TABLE votes; --"):
        with pytest.raises(VoteRefused, match="no such question"):
            box.vote(rater, 1, aspect, ballot.slots[0])
    for position in (0, -1, len(IDS) + 1):
        with pytest.raises(LookupError, match="rater-01 has no ballot"):
            box.vote(rater, position, "overall", ballot.slots[0])
    assert box.votes() == []


def test_submitting_needs_all_answers_and_makes_them_final(study, box):
    rater, other = box.raters()
    for position in range(1, len(IDS) + 1):
        assert box.open_positions(rater)[0] == position
        for aspect in ASPECTS:
            with pytest.raises(VoteRefused, match="still have open questions"):
                box.submit(rater)
            box.vote(rater, position, aspect.name, box.ballot(rater, position).slots[1])
    assert box.open_positions(rater) == []
    box.submit(rater)
    with pytest.raises(VoteRefused, match="submitted and are final"):
        box.vote(rater, 1, "overall", box.ballot(rater, 1).slots[0])
    with pytest.raises(VoteRefused, match="submitted and are final"):
        box.submit(rater)
    assert len(box.votes()) == len(IDS) * 3
    assert box.open_positions(other) == list(range(1, len(IDS) + 1))


def test_a_failed_transaction_leaves_nothing_and_blocks_nobody(study, box):
    rater = box.raters()[0]
    with pytest.raises(VoteRefused):
        box.vote(rater, 1, "overall", "nothing")
    with BallotBox(study) as second:
        second.vote(rater, 1, "overall", second.ballot(rater, 1).slots[2])
    assert len(box.votes()) == 1


def test_the_slots_of_a_vote_say_what_was_chosen_from(study, box):
    rater = box.raters()[0]
    ballot = box.ballot(rater, 3)
    box.vote(rater, 3, "alignment", ballot.slots[2])
    (vote,) = box.votes()
    assert (vote.rater, vote.position, vote.item, vote.slots) == ("rater-01", 3, ballot.item, ballot.slots)
    assert study.item[vote.item].pictures[vote.picture] in NAMES

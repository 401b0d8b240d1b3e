"""A user study: people say which of N pictures is the best, without knowing who made them (paper, Table 3).

    study = build_study({"ours": "out/ours", "base": "out/base"}, "study", prompts=prompts, num_raters=17)
    serve(study)                                     # each rater votes under a link of their own
    outcome = count_votes(study)                     # shares with intervals over raters and prompts

A study is one folder: pictures under opaque names, the manifest that knows whose they are, the votes in SQLite, and
the invitations. The pages need nothing from outside, and a vote that was acknowledged survives a kill at any moment.
"""

from urae.study.ballots import Ballot, BallotBox, Rater, Vote, VoteRefused, invite, read_invitations
from urae.study.build import build_study
from urae.study.manifest import ASPECTS, Aspect, Study, StudyItem, read_study
from urae.study.outcome import Outcome, RaterSummary, Standing, VotedPreference, count_votes
from urae.study.report import write_report
from urae.study.server import serve

__all__ = [
    "ASPECTS",
    "Aspect",
    "Ballot",
    "BallotBox",
    "Outcome",
    "Rater",
    "RaterSummary",
    "Standing",
    "Study",
    "StudyItem",
    "Vote",
    "VoteRefused",
    "VotedPreference",
    "build_study",
    "count_votes",
    "invite",
    "read_invitations",
    "read_study",
    "serve",
    "write_report",
]

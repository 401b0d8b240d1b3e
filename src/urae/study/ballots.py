"""The ballot box: who may vote on what, and what they said, in SQLite.

A rater is an invitation: a token of 128 random bits, of which the box keeps only the hash. With the invitation each
rater gets one ballot for every item, in an order of their own, the pictures of each in an order of its own. A vote
is (ballot, aspect) -> picture and may be changed until the rater submits; there is never more than one. A vote is on
the disk when `vote` returns (write-ahead log, synchronous=FULL), so a kill at any moment loses nothing of it.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import random
import secrets
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from urae.errors import BadFile, CannotWrite, UraeError
from urae.io import lines_of, read_text
from urae.study.manifest import Study

__all__ = ["Ballot", "BallotBox", "Rater", "Vote", "VoteRefused", "invite", "read_invitations"]

VOTES, INVITATIONS = "votes.sqlite", "invitations.csv"
SCHEMA = """
CREATE TABLE IF NOT EXISTS raters (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, token_hash TEXT NOT NULL UNIQUE,
    joined TEXT, submitted TEXT) STRICT;
CREATE TABLE IF NOT EXISTS ballots (
    id INTEGER PRIMARY KEY, rater INTEGER NOT NULL REFERENCES raters, position INTEGER NOT NULL,
    item TEXT NOT NULL, slots TEXT NOT NULL, opened TEXT,
    UNIQUE (rater, position), UNIQUE (rater, item)) STRICT;
CREATE TABLE IF NOT EXISTS votes (
    ballot INTEGER NOT NULL REFERENCES ballots, aspect TEXT NOT NULL, picture TEXT NOT NULL,
    zoomed INTEGER NOT NULL, cast_at TEXT NOT NULL, changes INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (ballot, aspect)) STRICT, WITHOUT ROWID;
"""


class VoteRefused(UraeError):
    """A vote or a ballot that does not belong to this rater, or comes too late."""


@dataclass(frozen=True, kw_only=True)
class Rater:
    """One invitation."""

    id: int
    name: str
    """Such as rater-03; nothing about the person."""
    joined: str
    """When the invitation was first used, UTC; empty if it never was."""
    submitted: str
    """When the rater was done, UTC; empty while votes may change."""


@dataclass(frozen=True, kw_only=True)
class Ballot:
    """One set of pictures as one rater sees it."""

    position: int
    """From 1."""
    item: str
    slots: tuple[str, ...]
    """Opaque names of the pictures, in the order shown."""
    choices: dict[str, str]
    """Aspect -> picture, of the votes so far."""


@dataclass(frozen=True, kw_only=True)
class Vote:
    """What one rater said about one aspect of one item."""

    rater: str
    position: int
    item: str
    slots: tuple[str, ...]
    aspect: str
    picture: str
    zoomed: bool
    """Whether the rater had looked at the native pixels of this item; as their browser says."""
    opened: str
    """When the item was first shown, UTC."""
    cast_at: str
    """When the choice was last made, UTC."""
    changes: int
    """Times it was changed."""


class BallotBox(AbstractContextManager):
    """The votes of `study`, open. One box serves many threads, and other processes may have the same one open."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self.aspects = tuple(aspect.name for aspect in study.aspects)
        self._lock = threading.Lock()
        # Transactions are begun by hand: sqlite3 would begin them late, after what they have to protect.
        self._db = sqlite3.connect(study.folder / VOTES, isolation_level=None, check_same_thread=False)
        self._db.row_factory = sqlite3.Row
        try:
            for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=10000"):
                self._db.execute(f"PRAGMA {pragma}")
            self._db.executescript(SCHEMA)
        except sqlite3.DatabaseError as error:
            self._db.close()
            if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
                raise CannotWrite(
                    f"{study.folder / VOTES} cannot be written: the disk is full or failed: make room and run again"
                ) from error
            raise BadFile(
                f"{study.folder / VOTES} cannot be opened as the votes of a study: {error}"
            ) from error

    def __exit__(self, *error: object) -> None:
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def add_raters(self, num: int) -> dict[str, str]:
        """Invite `num` more: name -> token. The tokens cannot be had again from the box."""
        with self._writing() as db:
            first = db.execute("SELECT count(*) FROM raters").fetchone()[0] + 1
            tokens = {
                f"rater-{number:02d}": secrets.token_urlsafe(16) for number in range(first, first + num)
            }
            for name, token in tokens.items():
                rater = db.execute(
                    "INSERT INTO raters (name, token_hash) VALUES (?, ?)", (name, _hash(token))
                ).lastrowid
                db.executemany(
                    "INSERT INTO ballots (rater, position, item, slots) VALUES (?, ?, ?, ?)",
                    [(rater, *row) for row in self._drawn_ballots()],
                )
        return tokens

    def rater(self, token: str) -> Rater | None:
        """Who was invited with this token; None for nobody."""
        return next(iter(self._raters("WHERE token_hash = ?", _hash(token))), None)

    def raters(self) -> list[Rater]:
        """Everybody who was invited."""
        return self._raters("ORDER BY id")

    def join(self, rater: Rater) -> None:
        """Note that the invitation was used; a second time changes nothing."""
        with self._writing() as db:
            db.execute("UPDATE raters SET joined = coalesce(joined, ?) WHERE id = ?", (_now(), rater.id))

    def ballot(self, rater: Rater, position: int) -> Ballot:
        """Show the rater's ballot at `position` (from 1); `LookupError` where there is none."""
        with self._writing() as db:
            row = _ballot(db, rater, position)
            db.execute("UPDATE ballots SET opened = coalesce(opened, ?) WHERE id = ?", (_now(), row["id"]))
            votes = db.execute("SELECT aspect, picture FROM votes WHERE ballot = ?", (row["id"],)).fetchall()
        return Ballot(
            position=position,
            item=row["item"],
            slots=tuple(json.loads(row["slots"])),
            choices={vote["aspect"]: vote["picture"] for vote in votes},
        )

    def open_positions(self, rater: Rater) -> list[int]:
        """Positions of the ballots that lack a vote."""
        return [row["position"] for row in self._select(OPEN, (rater.id, len(self.aspects)))]

    def vote(self, rater: Rater, position: int, aspect: str, picture: str, *, zoomed: bool = False) -> None:
        """Cast or change a vote; it is on the disk when this returns.

        `LookupError` where there is no such ballot; `VoteRefused` for a picture that is not on it, an unknown aspect,
        or a rater who has submitted.
        """
        with self._writing() as db:
            ballot = _ballot(db, rater, position)
            _refuse_late(db, rater)
            if aspect not in self.aspects:
                raise VoteRefused("no such question is asked in this study")
            if picture not in json.loads(ballot["slots"]):
                raise VoteRefused("no such picture is on this ballot")
            db.execute(CAST, (ballot["id"], aspect, picture, zoomed, _now()))

    def submit(self, rater: Rater) -> None:
        """The rater is done: votes are final. `VoteRefused` while questions are open, or a second time."""
        with self._writing() as db:
            _refuse_late(db, rater)
            if open_ballots := db.execute(OPEN, (rater.id, len(self.aspects))).fetchall():
                raise VoteRefused(f"{len(open_ballots)} sets of pictures still have open questions")
            db.execute("UPDATE raters SET submitted = ? WHERE id = ?", (_now(), rater.id))

    def votes(self) -> list[Vote]:
        """All votes, by rater and position."""
        return [
            Vote(**{**dict(row), "slots": tuple(json.loads(row["slots"])), "zoomed": bool(row["zoomed"])})
            for row in self._select(ALL_VOTES, ())
        ]

    def _drawn_ballots(self) -> Iterator[tuple[int, str, str]]:
        """(position, item, slots), in an order nobody can foresee."""
        chance = random.SystemRandom()
        for position, item in enumerate(chance.sample(self.study.items, len(self.study.items)), 1):
            yield position, item.id, json.dumps(chance.sample(list(item.pictures), len(item.pictures)))

    def _raters(self, condition: str, *values: str) -> list[Rater]:
        query = "SELECT id, name, ifnull(joined, '') joined, ifnull(submitted, '') submitted FROM raters "
        return [Rater(**dict(row)) for row in self._select(query + condition, values)]

    def _select(self, query: str, values: Sequence[object]) -> list[sqlite3.Row]:
        with self._lock:
            return self._db.execute(query, values).fetchall()

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction, committed to the disk or not done at all."""
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")


OPEN = """
SELECT position FROM ballots
WHERE rater = ? AND (SELECT count(*) FROM votes WHERE ballot = ballots.id) < ? ORDER BY position
"""
CAST = """
INSERT INTO votes (ballot, aspect, picture, zoomed, cast_at) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (ballot, aspect) DO UPDATE SET
    changes = changes + (picture <> excluded.picture), picture = excluded.picture,
    zoomed = max(zoomed, excluded.zoomed), cast_at = excluded.cast_at
"""
ALL_VOTES = """
SELECT raters.name rater, position, item, slots, aspect, picture, zoomed, ifnull(opened, '') opened, cast_at, changes
FROM votes JOIN ballots ON ballots.id = votes.ballot JOIN raters ON raters.id = ballots.rater
ORDER BY raters.id, position, aspect
"""


def invite(box: BallotBox, num: int) -> dict[str, str]:
    """Invite `num` more raters and add them to the study's invitations, a file that only its owner may read."""
    tokens = box.add_raters(num)
    path = box.study.folder / INVITATIONS
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "w", newline="") as file:
        csv.writer(file).writerows(tokens.items())
    return tokens


def read_invitations(folder: Path | str) -> dict[str, str]:
    """Rater -> token, of all that were invited; none where the file was taken away."""
    path = Path(folder) / INVITATIONS
    if not path.exists():
        return {}
    rows = list(csv.reader(lines_of(read_text(path))))
    if wrong := next((number for number, row in enumerate(rows, 1) if len(row) != 2), 0):
        raise BadFile(f"{path}, line {wrong} is not an invitation: expected a rater and a token")
    return dict(rows)


def _ballot(db: sqlite3.Connection, rater: Rater, position: int) -> sqlite3.Row:
    query = "SELECT id, item, slots FROM ballots WHERE rater = ? AND position = ?"
    # SQLite holds 64 bits, and an address any number.
    row = db.execute(query, (rater.id, position)).fetchone() if abs(position) < 2**63 else None
    if row is None:
        raise LookupError(f"{rater.name} has no ballot {position}")
    return row


def _refuse_late(db: sqlite3.Connection, rater: Rater) -> None:
    if db.execute("SELECT submitted FROM raters WHERE id = ?", (rater.id,)).fetchone()[0]:
        raise VoteRefused("your votes have been submitted and are final")


def _hash(token: str) -> str:
    # The token is 128 random bits: nothing slower than SHA-256 would make it safer.
    return hashlib.sha256(token.encode()).hexdigest()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")

"""Asking: every question of every picture once, each answer on the disk before the next.

An answer is known by the picture's file, its place in a grid, the question and the model, so a run that was stopped
goes on, another candidate with the same picture is free, and so is the other scoring rule.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from typing import Any

from PIL import Image

from urae.dpg.answerer import Answerer, Ask, ModelAnswer
from urae.dpg.questions import DpgItem
from urae.dpg.scoring import read_answer
from urae.io import Line, read_picture, settle_all
from urae.judge.journal import AnswerJournal

__all__ = ["Tile", "ask", "pending", "said"]

Records = Mapping[str, Sequence[Mapping[str, Any]]]


@dataclass(frozen=True, kw_only=True)
class Tile:
    """One picture of a prompt: a file, or a part of one that holds a square grid of them."""

    item: DpgItem
    file: Path
    digest: str
    """SHA-256 of the file."""
    place: int
    """In reading order, from 0."""
    grid: int
    """Pictures in a row of the file, and rows."""

    def key(self, question: str, answerer: Answerer) -> str:
        parts = [self.digest, self.place, self.grid, question, answerer.identity]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def open(self) -> Image.Image:
        """RGB. `ValueError` for a file that does not divide into its grid."""
        whole = read_picture(self.file)
        if whole.width % self.grid or whole.height % self.grid:
            raise ValueError(
                f"{self.file} is {whole.width}x{whole.height}, which does not divide into {self.grid}x{self.grid} "
                "pictures: expected a grid of pictures of one size without a border"
            )
        width, height = whole.width // self.grid, whole.height // self.grid
        top, left = divmod(self.place, self.grid)
        return whole.crop((left * width, top * height, (left + 1) * width, (top + 1) * height))


def ask(
    tiles: Sequence[Tile],
    answerer: Answerer,
    *,
    journal: Path,
    on_answer: Callable[[], object] = lambda: None,
) -> Records:
    """Ask what `journal` has no answer to, and return all records by key. `on_answer` is called from this thread."""
    with AnswerJournal(journal) as opened:
        # Where two candidates have the same picture, one of them asks.
        waiting = {
            tuple(tile.key(text, answerer) for text in left): tile
            for tile in tiles
            if (left := pending(tile, answerer, opened.answers))
        }
        if waiting:
            with answerer.opened() as asked:
                settle_all(
                    waiting.values(),
                    lambda tile, stopped: _settle(tile, answerer, asked, opened, stopped),
                    concurrency=answerer.concurrency,
                    on_settled=lambda count: [on_answer() for _ in range(count)],
                )
        return opened.answers


def pending(tile: Tile, answerer: Answerer, records: Records) -> list[str]:
    """Questions about a picture without a readable answer that have attempts left, each text once."""
    texts = dict.fromkeys(question.text for question in tile.item.questions)
    return [text for text in texts if _open(records.get(tile.key(text, answerer), ()), answerer.attempts)]


def said(tile: Tile, answerer: Answerer, records: Records) -> dict[int, str]:
    """Question -> the first answer that can be read, else the last one."""
    texts = {}
    for question in tile.item.questions:
        answers = [record["text"] for record in records[tile.key(question.text, answerer)]]
        texts[question.id] = next((text for text in answers if read_answer(text) is not None), answers[-1])
    return texts


def _open(records: Sequence[Mapping[str, Any]], attempts: int) -> bool:
    return len(records) < attempts and all(read_answer(record["text"]) is None for record in records)


def _settle(tile: Tile, answerer: Answerer, asked: Ask, journal: AnswerJournal, stopped: Event) -> int:
    """Ask about one picture until every answer can be read or the attempts are used up. Returns the questions."""
    count, picture = len(pending(tile, answerer, journal.answers)), tile.open()
    for attempt in range(answerer.attempts):
        keys = {text: tile.key(text, answerer) for text in pending(tile, answerer, journal.answers)}
        texts = [text for text, key in keys.items() if len(journal.answers.get(key, ())) == attempt]
        if stopped.is_set() or not texts:
            continue
        for text, answer in zip(texts, asked(picture, texts, attempt), strict=True):
            journal.append(_line(tile, keys[text], text, attempt, answer))
            if stopped.is_set():
                return count
    return count


def _line(tile: Tile, key: str, question: str, attempt: int, answer: ModelAnswer) -> Line:
    return {
        "key": key,
        "item": tile.item.id,
        "picture": tile.file.name,
        "place": tile.place,
        "question": question,
        "attempt": attempt,
        "text": answer.text,
        "model": answer.model,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }

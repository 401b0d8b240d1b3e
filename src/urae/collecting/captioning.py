"""Detailed captions by a vision-language model, the second of the two that an image is trained with.

Every answer is a line of a journal beside the manifest, on the disk before the next question, and is found again by
the image's bytes, the model and the instruction: what was answered once is never asked or paid again, also by another
manifest's run in the same place. The captions go into the manifest when the run ends, all at once, also where it ends
by an error; after a kill the next run puts them there.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from typing import Any

from urae.collecting.answers import CaptionAnswer, judged
from urae.collecting.captioner import Captioner
from urae.data import Record, read_records, write_manifest
from urae.data.manifest import MANIFEST
from urae.errors import BadFile, StaleCache
from urae.io import (
    Journal,
    Line,
    Progress,
    Reply,
    check_can_write,
    field_of,
    read_bytes,
    read_journal,
    settle_all,
)

__all__ = ["CaptionPlan", "Captioned", "caption", "plan_captions", "run_captions"]

ATTEMPTS = 2
"""An answer that is no caption is asked for once more, then counted as invalid. A refusal is not."""
OUTPUT_TOKENS = 200
"""Of a caption, for the estimate."""

Answers = Mapping[str, Sequence[CaptionAnswer]]
"""By key, oldest first."""


@dataclass(frozen=True, kw_only=True)
class CaptionPlan:
    """What `run_captions` asks, before anything is spent. Tokens are estimates, from four characters each."""

    captioner: Captioner
    manifest: Path
    """Where the captions come, and beside it the journal."""
    root: Path
    """Folder that the records' files are in."""
    records: tuple[Record, ...]
    """All of the data set."""
    wanting: tuple[Record, ...]
    """Those that are to have a caption of this captioner's."""
    pending: tuple[Record, ...]
    """Those of them that no earlier run has an answer for."""
    tokens_per_picture: int

    def __str__(self) -> str:
        captioner = self.captioner
        return (
            f"captioner: {captioner.model} at {captioner.base_url}, images reduced to {captioner.max_side} px\n"
            f"images: {self.num_images}, with a detailed caption: {self.num_captioned}, answered before: "
            f"{self.num_answered}, to ask: {self.num_requests}\n"
            f"tokens, estimated: {self.input_tokens} in, {self.output_tokens} out"
        )

    @property
    def journal(self) -> Path:
        """Where every answer is kept."""
        return _journal_of(self.manifest)

    @property
    def num_images(self) -> int:
        return len(self.records)

    @property
    def num_captioned(self) -> int:
        """That have a detailed caption in the manifest, which stays."""
        return len(self.records) - len(self.wanting)

    @property
    def num_answered(self) -> int:
        return len(self.wanting) - len(self.pending)

    @property
    def num_requests(self) -> int:
        return len(self.pending)

    @property
    def input_tokens(self) -> int:
        return self.num_requests * (self.tokens_per_picture + len(self.captioner.instruction) // 4)

    @property
    def output_tokens(self) -> int:
        return self.num_requests * OUTPUT_TOKENS

    def price(self, *, per_million_in: float, per_million_out: float) -> float:
        """In the currency of the two prices."""
        return (self.input_tokens * per_million_in + self.output_tokens * per_million_out) / 1e6


@dataclass(frozen=True, kw_only=True)
class Captioned:
    """What came of it."""

    manifest: Path
    num_written: int
    """Captions that this run put into the manifest."""
    missing: dict[str, str]
    """Files without a detailed caption, with the reason."""
    usage: dict[str, int]
    """Tokens that the server counted in this run."""


def caption(
    source: str | Path, captioner: Captioner, *, renew: bool = False, concurrency: int = 4
) -> Captioned:
    """Describe the images of a folder or manifest, and write their `detailed` captions into the manifest, a folder's
    into its `manifest.jsonl`; arguments and errors are those of `plan_captions` and `run_captions`."""
    return run_captions(plan_captions(source, captioner, renew=renew), concurrency=concurrency)


def plan_captions(
    source: str | Path, captioner: Captioner, *, renew: bool = False, tokens_per_picture: int = 765
) -> CaptionPlan:
    """What is to be asked about the images of a folder or manifest, and its cost. Sends and writes nothing.

    renew: also about images that have a detailed caption. tokens_per_picture: 765 is OpenAI's count for a square
    picture in high detail. `ValueError` or `CannotWrite` where the manifest could not be written.
    """
    records, root = read_records(source, captioned=False)
    manifest = _manifest_of(source)
    check_can_write(manifest)
    wanting = [record for record in records if renew or "detailed" not in record.captions]
    journal = _journal_of(manifest)
    pending = _pending(wanting, captioner, _answers(read_journal(journal), journal))
    return CaptionPlan(
        captioner=captioner,
        manifest=manifest,
        root=root,
        records=tuple(records),
        wanting=tuple(wanting),
        pending=tuple(pending),
        tokens_per_picture=tokens_per_picture,
    )


def run_captions(plan: CaptionPlan, *, concurrency: int = 4) -> Captioned:
    """Ask what is planned, so many requests at a time, and write the captions into the manifest.

    Stopped or killed at any moment, the same call goes on where it was. `StaleCache` for an image that is not the one
    that the manifest names, `Unanswered` where the server fails for good; answers that came before are kept.
    """
    if not 1 <= concurrency <= 256:
        raise ValueError(f"concurrency is {concurrency}: expected 1 to 256")
    with Journal(plan.journal) as journal:
        run = _Captioning(plan.captioner, journal, plan.root)
        try:
            run.ask_all(_pending(plan.wanting, plan.captioner, run.answers), concurrency)
        finally:
            texts = _texts(plan.wanting, plan.captioner, run.answers)
            if texts:
                write_manifest([_captioned(record, texts) for record in plan.records], plan.manifest)
    return Captioned(
        manifest=plan.manifest,
        num_written=len(texts),
        missing={record.file: run.reason(record) for record in plan.wanting if record.id not in texts},
        usage=dict(run.usage),
    )


class _Captioning:
    """What the workers of one run share."""

    def __init__(self, captioner: Captioner, journal: Journal, root: Path) -> None:
        self.captioner, self.journal, self.root = captioner, journal, root
        self.answers = _answers(journal.lines, journal.path)
        self.usage: Counter[str] = Counter()
        self.unreadable: dict[str, str] = {}

    def ask_all(self, pending: Sequence[Record], concurrency: int) -> None:
        if not pending:
            return
        title = f"captioning by {self.captioner.model}"
        with self.captioner.connect() as client, Progress(title, total=len(pending)) as progress:

            def count(usage: Counter[str]) -> None:
                # Added up here alone: the workers would count into each other's sums.
                self.usage.update(usage)
                tokens = ", ".join(f"{num} {name.partition('_')[0]}" for name, num in self.usage.items())
                progress.advance(f"tokens: {tokens}" if tokens else "")

            settle_all(
                pending,
                lambda record, stopped: self._settle(record, client, stopped),
                concurrency=concurrency,
                on_settled=count,
            )

    def reason(self, record: Record) -> str:
        """Why a record has no caption."""
        answers = self.answers.get(self.captioner.key(record.id), ())
        if record.file in self.unreadable or not answers:
            return self.unreadable.get(record.file, "not asked")
        last = answers[-1]
        return f"{last.outcome}: {last.reason} ({last.text[:120]!r})"

    def _settle(self, record: Record, client: Any, stopped: Event) -> Counter[str]:
        """The tokens that it took to describe the image."""
        try:
            return self._ask(record, client, stopped)
        except BadFile as error:
            self.unreadable[record.file] = str(error)
            return Counter()

    def _ask(self, record: Record, client: Any, stopped: Event) -> Counter[str]:
        path, key = self.root / record.file, self.captioner.key(record.id)
        usage: Counter[str] = Counter()
        if hashlib.sha256(read_bytes(path)).hexdigest() != record.id:
            raise StaleCache(f"{path} is not the image that the manifest names: make the manifest again")
        while not (_settled(self.answers.get(key, ())) or stopped.is_set()):
            tried = len(self.answers.get(key, ()))
            reply = self.captioner.describe(client, path, key=f"{key}-{tried}")
            line = _line(reply, key, record.id)
            self.journal.append(line)
            self.answers[key].append(_judged(line))
            usage.update(reply.usage)
        return usage


def _manifest_of(source: str | Path) -> Path:
    return Path(source) / MANIFEST if Path(source).is_dir() else Path(source)


def _journal_of(manifest: Path) -> Path:
    return manifest.with_suffix(".captions.jsonl")


def _line(reply: Reply, key: str, image: str) -> Line:
    """An answer as the journal has it: whole, so that it can be judged by other rules without being asked again."""
    return {
        "key": key,
        "image": image,
        "text": reply.text,
        "finish_reason": reply.finish_reason,
        "outcome": judged(reply.text, reply.finish_reason).outcome,
        "model": reply.model,
        "usage": dict(reply.usage),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _answers(lines: Sequence[Line], path: Path) -> dict[str, list[CaptionAnswer]]:
    answers = defaultdict(list)
    for number, line in enumerate(lines, start=1):
        for name in ("key", "text", "outcome"):
            field_of(line, name, str, name=f"{path}, line {number}")
        answers[line["key"]].append(_judged(line))
    return answers


def _judged(line: Line) -> CaptionAnswer:
    """Lines of earlier versions have an outcome in place of the reason for the text's end."""
    ended = {"refused": "content_filter", "invalid": "length"}.get(line["outcome"], "stop")
    return judged(line["text"], str(line.get("finish_reason", ended)))


def _pending(records: Sequence[Record], captioner: Captioner, answers: Answers) -> list[Record]:
    return [record for record in records if not _settled(answers.get(captioner.key(record.id), ()))]


def _settled(answers: Sequence[CaptionAnswer]) -> bool:
    decided = any(answer.outcome in ("caption", "refused") for answer in answers)
    return decided or len(answers) >= ATTEMPTS


def _texts(records: Sequence[Record], captioner: Captioner, answers: Answers) -> dict[str, str]:
    """Captions by the record's id."""
    texts = {}
    for record in records:
        for answer in answers.get(captioner.key(record.id), ()):
            if answer.outcome == "caption":
                texts[record.id] = answer.text
    return texts


def _captioned(record: Record, texts: Mapping[str, str]) -> Record:
    if record.id not in texts:
        return record
    return replace(record, captions=record.captions | {"detailed": texts[record.id]})

"""Asking what a plan holds, several questions at once, each answer on the disk as soon as it is there."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from typing import Any

from urae.io import settle_all
from urae.judge.journal import AnswerJournal
from urae.judge.plan import ATTEMPTS, JudgeQuestion, JudgingPlan
from urae.judge.verdicts import Verdicts, count_verdicts

__all__ = ["judge"]


def judge(
    plan: JudgingPlan,
    *,
    journal: Path | str,
    concurrency: int = 4,
    seed: int = 0,
    on_question: Callable[[], object] = lambda: None,
) -> Verdicts:
    """Ask the questions of `plan` that `journal` has no answer to, and add everything up.

    Stopped or killed at any moment, the same call goes on where it was. `on_question` is called, from this thread,
    after each question. `Unanswered` where the server fails for good; answers that came before are kept.
    """
    if not 1 <= concurrency <= 256:
        raise ValueError(f"concurrency is {concurrency}: expected 1 to 256")
    with AnswerJournal(journal) as opened:
        if pending := plan.pending(opened.answers):
            with plan.endpoint.client() as client:
                settle_all(
                    pending,
                    lambda question, stopped: _settle(plan, question, opened, client, stopped),
                    concurrency=concurrency,
                    on_settled=lambda _: on_question(),
                )
        return count_verdicts(plan, opened.answers, seed=seed)


def _settle(
    plan: JudgingPlan, question: JudgeQuestion, journal: AnswerJournal, client: Any, stopped: Event
) -> None:
    """Ask until the answer can be read or the attempts are used up, unless the run was `stopped`."""
    for attempt in range(len(journal.answers.get(question.key, ())), ATTEMPTS):
        if stopped.is_set():
            return
        reply = plan.endpoint.ask(
            client,
            plan.content(question, attempt),
            schema=plan.schema(question),
            key=f"{question.key}-{attempt}",
        )
        record = {
            "key": question.key,
            "kind": question.kind,
            "aspect": question.aspect,
            "id": question.item.id,
            "shown": list(question.shown),
            "attempt": attempt,
            "text": reply.text,
            "model": reply.model,
            "fingerprint": reply.fingerprint,
            "usage": dict(reply.usage),
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        journal.append(record)
        if plan.read(question, journal.answers) is not None:
            return

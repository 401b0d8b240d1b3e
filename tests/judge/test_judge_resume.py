"""The journal: a run that is killed, torn or doubled loses no answer and pays for none twice."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections import Counter

import pytest
from judge_material import small_plan
from judge_server import completion, oracle, running

from urae.errors import BadFile, UraeError
from urae.judge.ask import judge
from urae.judge.journal import AnswerJournal, read_answers

RUN = """
import sys
from pathlib import Path
from urae.judge import Endpoint, judge, plan_judging, prompts_by_id
plan = plan_judging(
    {"dark": sys.argv[1], "bright": sys.argv[2]}, prompts_by_id(sys.argv[3]), aspects=("overall",), kinds=("pair",),
    endpoint=Endpoint(model="toy", base_url=sys.argv[4], retries=0),
)
verdicts = judge(plan, journal=Path(sys.argv[5]), concurrency=2)
print(verdicts.to_json())
"""


def test_a_run_that_is_killed_goes_on_without_losing_or_repeating_an_answer(two, prompts_file, tmp_path):
    """SIGKILL while two requests are under way: those may be asked again, all that were answered may not."""
    journal, answered = tmp_path / "a.jsonl", []
    gate = threading.Event()

    def behaviour(asked):
        if asked.number >= 10 and not gate.is_set():
            gate.wait(300)  # Held until the process is dead.
        else:
            answered.append(asked.headers["idempotency-key"])
        return oracle(asked)

    with running(behaviour) as server:
        command = [sys.executable, "-c", RUN, two["dark"], two["bright"], prompts_file, server.url, journal]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            wait_for(
                lambda: journal.exists() and journal.read_text().count("\n") == 10 and len(server.asked) == 12
            )
        finally:
            process.kill()
            process.wait()
        gate.set()
        assert len(read_answers(journal)) == 10
        before = journal.read_text()
        result = subprocess.run(command, capture_output=True, text=True, check=True)
        under_way = {asked.headers["idempotency-key"] for asked in server.asked[10:12]}
        asked_again = server.asked[12:]
    assert len(asked_again) == 16 - 10
    assert journal.read_text().startswith(before)
    assert max(Counter(answered).values()) == 1
    assert under_way <= {asked.headers["idempotency-key"] for asked in asked_again}
    verdicts = json.loads(result.stdout)
    assert verdicts["num_answers"] == 16
    assert verdicts["preferences"][0]["losses"] == 8


def wait_for(condition, seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def test_a_finished_run_asks_nothing_and_needs_no_server(two, tmp_path):
    with running(oracle) as server:
        plan = small_plan(two, server.url)
        first = judge(plan, journal=tmp_path / "a.jsonl")
    assert judge(plan, journal=tmp_path / "a.jsonl") == first


def test_more_candidates_later_ask_only_what_is_new(folders, two, tmp_path):
    with running(oracle) as server:
        judge(small_plan(two, server.url), journal=tmp_path / "a.jsonl")
        assert len(server.asked) == 16
        judge(small_plan(folders, server.url), journal=tmp_path / "a.jsonl")
        assert len(server.asked) == 3 * 16


def test_a_run_torn_at_any_byte_comes_to_the_same_end(two, tmp_path):
    """Cut within the last two lines, as a power cut would leave it, and at each of their ends."""
    journal = tmp_path / "a.jsonl"
    with running(oracle) as server:
        plan = small_plan(two, server.url)
        whole = judge(plan, journal=journal, concurrency=1)
        content = journal.read_bytes()
        lines = content.splitlines(keepends=True)
        kept = len(content) - len(lines[-1]) - len(lines[-2])
        ends = {end + step for end in (kept, kept + len(lines[-2]), len(content)) for step in (-2, -1, 0, 1)}
        for length in sorted(ends & set(range(kept, len(content) + 1)) | set(range(kept, len(content), 97))):
            journal.write_bytes(content[:length])
            with AnswerJournal(journal) as opened:
                # A record that lacks only its newline is whole.
                num_whole = 14 + (length >= kept + len(lines[-2]) - 1) + (length >= len(content) - 1)
                assert len(opened.answers) == num_whole
                opened.append({"key": "next"})
            assert list(read_answers(journal)) == [*list(opened.answers)[:num_whole], "next"]
        journal.write_bytes(content[: kept + 5])
        before = len(server.asked)
        again = judge(plan, journal=journal, concurrency=1)
        assert len(server.asked) - before == 2
    assert again.preferences == whole.preferences


def test_a_damaged_line_that_is_not_the_last_is_an_error(tmp_path):
    path = tmp_path / "a.jsonl"
    for damage in ("{not json", "[]", '{"text": "no key"}'):
        path.write_text(f'{{"key": "a"}}\n{damage}\n{{"key": "b"}}\n')
        with pytest.raises(BadFile, match="line 2 is (damaged|not an answer)"):
            read_answers(path)
        with pytest.raises(BadFile, match="line 2"), AnswerJournal(path):
            pass
        assert damage in path.read_text()


def test_two_runs_at_once_would_pay_twice(tmp_path):
    with AnswerJournal(tmp_path / "a.jsonl") as journal:
        with pytest.raises(UraeError, match="another run is writing"), AnswerJournal(tmp_path / "a.jsonl"):
            pass
        journal.append({"key": "a"})
    with AnswerJournal(tmp_path / "a.jsonl") as journal:
        assert list(journal.answers) == ["a"]


def test_an_answer_is_on_the_disk_before_the_next_question(two, tmp_path):
    journal = tmp_path / "a.jsonl"
    seen = []

    def behaviour(asked):
        seen.append(journal.read_text().count("\n"))
        return oracle(asked)

    with running(behaviour) as server:
        judge(small_plan(two, server.url), journal=journal, concurrency=1)
    assert seen == list(range(16))


def test_a_question_whose_first_answer_was_invalid_is_asked_once_more_after_a_stop(two, tmp_path):
    journal = tmp_path / "a.jsonl"
    with running(lambda asked: completion("banana")) as server:
        plan = small_plan(two, server.url)
        judge(plan, journal=journal)
        lines = journal.read_text().splitlines(keepends=True)
        journal.write_text("".join(line for line in lines if json.loads(line)["attempt"] == 0))
        before = len(server.asked)
        verdicts = judge(plan, journal=journal)
        assert len(server.asked) - before == 16
    assert verdicts.num_answers == verdicts.num_invalid == 32

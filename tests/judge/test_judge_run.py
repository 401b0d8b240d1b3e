"""The judge against a real server: what each kind of judge comes out as, and what happens when the server fails."""

from __future__ import annotations

import itertools
import json
import re
import threading
import time

import pytest
from judge_material import IDS, PROMPTS, draw, small_plan
from judge_server import always_first, completion, failure, oracle, running, score, verdict

from urae.errors import MissingExtra
from urae.io import Unanswered
from urae.judge.ask import judge
from urae.judge.instructions import Instructions
from urae.judge.journal import read_answers


def test_a_judge_that_always_says_first_has_no_preference(two, tmp_path):
    with running(always_first) as server:
        verdicts = judge(small_plan(two, server.url), journal=tmp_path / "a.jsonl")
    (preference,) = verdicts.preferences
    assert (preference.wins, preference.ties, preference.losses, preference.invalid) == (0, 8, 0, 0)
    assert preference.rate.value == 0.5
    assert preference.p_value == 1
    assert preference.first_slot.value == 1
    assert preference.first_slot.low > 0.5
    assert preference.consistent == 0
    assert "100.0% [80.6%, 100.0%] | 0% |" in verdicts.to_markdown()


def test_an_oracle_is_found_in_every_number(folders, tmp_path):
    with running(oracle) as server:
        plan = small_plan(folders, server.url, aspects=("detail",), kinds=("pair", "score"))
        verdicts = judge(plan, journal=tmp_path / "a.jsonl", concurrency=8)
    expected = {("dark", "bright"): 0.0, ("dark", "middle"): 0.0, ("bright", "middle"): 1.0}
    for preference in verdicts.preferences:
        pair = preference.candidate, preference.against
        assert preference.rate.value == expected[pair]
        assert preference.p_adjusted == pytest.approx(3 * 2 / 2**8)
        assert preference.first_slot.value == 0.5
        assert preference.consistent == 1
    assert list(verdicts.rankings["detail"]) == ["bright", "middle", "dark"]
    cells = {name: row["detail"] for name, row in verdicts.scores.cells.items()}
    for name, level in {"dark": 60, "bright": 180, "middle": 120}.items():
        assert cells[name].value == pytest.approx(level / 2.55, abs=1)
    assert [cells[name].mark for name in ("bright", "middle", "dark")] == ["best", "second", ""]
    assert verdicts.num_answers == len(server.asked) == 8 * 9
    assert verdicts.usage == {"prompt_tokens": 7200, "completion_tokens": 720}
    assert verdicts.models == {"toy-2026-11-01": 72}


def test_the_server_sees_two_labelled_pictures_the_prompt_and_the_schema(two, tmp_path):
    with running(always_first) as server:
        judge(small_plan(two, server.url, aspects=("overall", "detail")), journal=tmp_path / "a.jsonl")
    whole = [asked for asked in server.asked if asked.labels == ["Image 1:", "Image 2:"]]
    crops = [f"Image {k}, crop {c} of 2:" for k in (1, 2) for c in (1, 2)]
    native = [asked for asked in server.asked if asked.labels == crops]
    assert len(whole) == len(native) == 16
    assert {picture.size for asked in whole for picture in asked.pictures} == {(96, 64)}
    assert {picture.size for asked in native for picture in asked.pictures} == {(32, 32)}
    for asked in server.asked:
        assert sum(f"The request: {prompt}\n" in asked.text for prompt in PROMPTS.values()) == 1
        assert asked.body["temperature"] == 0
        assert asked.headers["idempotency-key"].endswith("-0")
        assert asked.body["response_format"]["json_schema"]["schema"]["required"] == ["reason", "winner"]
    assert len({asked.headers["idempotency-key"] for asked in server.asked}) == 32
    # Both orders: of each prompt, the dark picture comes first once.
    assert sum(asked.brightness(1) < asked.brightness(2) for asked in whole) == 8


def test_ties_that_the_judge_names_are_half_a_win(two, tmp_path):
    with running(lambda asked: verdict("tie")) as server:
        (preference,) = judge(small_plan(two, server.url), journal=tmp_path / "a.jsonl").preferences
    assert (preference.ties, preference.rate.value, preference.consistent) == (8, 0.5, 1.0)
    assert preference.first_slot is None


def test_answers_that_cannot_be_read_are_asked_again_once_and_then_counted(two, tmp_path):
    """Two prompts never get a valid answer, one gets it at the second try."""

    def behaviour(asked):
        if PROMPTS["p0"] in asked.text or PROMPTS["p1"] in asked.text:
            return completion("I would rather not say.")
        again = "Keep to that form exactly" in json.dumps(asked.body)
        if PROMPTS["p2"] in asked.text and not again:
            return completion('{"winner": "fir')
        return oracle(asked)

    with running(behaviour) as server:
        plan = small_plan(two, server.url, kinds=("pair", "score"))
        verdicts = judge(plan, journal=tmp_path / "a.jsonl")
    # 4 questions a prompt; p0, p1 and p2 are asked twice.
    assert len(server.asked) == verdicts.num_answers == 4 * (8 + 3)
    assert verdicts.num_invalid == 4 * (2 + 2 + 1)
    for preference in verdicts.preferences:
        assert preference.invalid == 2
        assert preference.wins + preference.ties + preference.losses == 6
    assert verdicts.invalid_scores == {"overall": {"dark": 2, "bright": 2}}
    assert verdicts.scores.cells["dark"]["overall"].num_prompts == 6
    assert "dark lacks 2 overall scores that could not be read" in verdicts.to_markdown()
    assert f"{4 * 5} of them could not be read" in verdicts.to_markdown()


def test_a_judge_that_only_says_garbage_has_no_numbers(two, tmp_path):
    with running(lambda asked: completion("banana")) as server:
        verdicts = judge(small_plan(two, server.url, kinds=("pair", "score")), journal=tmp_path / "a.jsonl")
    (preference,) = verdicts.preferences
    assert (preference.invalid, preference.rate, preference.first_slot) == (8, None, None)
    assert verdicts.scores is None
    assert verdicts.num_invalid == verdicts.num_answers == 64
    assert "too few valid answers" in verdicts.to_markdown()
    json.loads(verdicts.to_json())


@pytest.mark.parametrize(
    "refusal",
    [completion(None, refusal="no"), failure(400, "blocked", code="content_policy_violation")],
    ids=["in the message", "as an error"],
)
def test_a_refused_picture_is_an_invalid_answer_and_stops_nothing(two, tmp_path, refusal):
    with running(lambda asked: refusal if PROMPTS["p4"] in asked.text else oracle(asked)) as server:
        (preference,) = judge(small_plan(two, server.url), journal=tmp_path / "a.jsonl").preferences
    assert (preference.losses, preference.invalid) == (7, 1)


def test_one_answer_to_each_question_survives_429_500_and_timeouts(two, tmp_path):
    """The first requests fail in turn; each is repeated until it is answered, and nothing is asked twice over."""
    troubles = itertools.chain(
        [failure(429, headers={"Retry-After": "0.3"}), failure(500), failure(503), failure(408)],
        [completion("late")],
    )

    def behaviour(asked):
        trouble = next(troubles, None)
        if trouble and trouble.status == 200:
            trouble.seconds = 4
        return trouble or oracle(asked)

    with running(behaviour) as server:
        plan = small_plan(two, server.url, retries=4, timeout=3)
        verdicts = judge(plan, journal=tmp_path / "a.jsonl", concurrency=2)
    assert verdicts.num_answers == 16
    assert len(server.asked) == 16 + 5
    assert verdicts.num_invalid == 0
    assert verdicts.preferences[0].losses == 8


def test_the_servers_retry_after_is_kept(two, tmp_path):
    times = []

    def behaviour(asked):
        times.append(time.monotonic())
        return failure(429, headers={"Retry-After": "1.2"}) if len(times) == 1 else oracle(asked)

    with running(behaviour) as server:
        judge(small_plan(two, server.url), journal=tmp_path / "a.jsonl", concurrency=1)
    assert times[1] - times[0] >= 1.2  # of its own accord the client waits 0.5 s


def test_a_server_that_stays_broken_stops_the_run_and_keeps_what_came_before(two, tmp_path):
    broken = [True]

    def behaviour(asked):
        return failure(500, "out of order") if broken[0] and asked.number >= 5 else oracle(asked)

    journal = tmp_path / "a.jsonl"
    with running(behaviour) as server:
        plan = small_plan(two, server.url, retries=0)
        with pytest.raises(Unanswered, match="^toy at .* gave no answer: .*out of order"):
            judge(plan, journal=journal, concurrency=1)
        kept = journal.read_text()
        assert len(kept.splitlines()) == 5
        broken[0] = False
        asked_before = len(server.asked)
        verdicts = judge(plan, journal=journal, concurrency=1)
        assert len(server.asked) - asked_before == 16 - 5
    assert journal.read_text().startswith(kept)
    assert verdicts.preferences[0].losses == 8


@pytest.mark.parametrize("status", [401, 404, 400])
def test_a_wrong_request_is_not_repeated(two, tmp_path, status):
    with running(lambda asked: failure(status, "wrong")) as server:
        with pytest.raises(Unanswered, match="wrong"):
            judge(small_plan(two, server.url), journal=tmp_path / "a.jsonl", concurrency=1)
        assert len(server.asked) == 1


@pytest.mark.parametrize("body", ["<html>login</html>", "[]", '{"choices": []}', '{"choices": [{}]}', ""])
def test_a_body_that_is_no_completion_stops_the_run(two, tmp_path, body):
    def behaviour(asked):
        reaction = completion("")
        reaction.body = body
        return reaction

    with running(behaviour) as server, pytest.raises(Unanswered, match="answered with no chat completion"):
        judge(small_plan(two, server.url), journal=tmp_path / "a.jsonl", concurrency=1)


def test_no_more_requests_at_a_time_than_allowed(two, tmp_path):
    together = threading.Barrier(3)

    def behaviour(asked):
        if asked.number < 3:
            together.wait(60)
        reaction = oracle(asked)
        reaction.seconds = 0.02
        return reaction

    with running(behaviour) as server:
        judge(small_plan(two, server.url), journal=tmp_path / "a.jsonl", concurrency=3)
    assert server.most_at_once == 3
    for num in (0, 100_000):
        with pytest.raises(ValueError, match=f"concurrency is {num}: expected 1 to 256"):
            judge(small_plan(two), journal=tmp_path / "b.jsonl", concurrency=num)


def test_the_key_reaches_the_server_and_nothing_else(two, tmp_path, monkeypatch, caplog):
    secret = "sk-very-secret-1234567890"
    monkeypatch.setenv("TOY_KEY", secret)

    def behaviour(asked):
        """A server that repeats the key wherever it can."""
        if asked.number == 12:
            return failure(401, f"bad key {asked.headers['authorization']}")
        return completion(f'{{"reason": "{asked.headers["authorization"]}", "winner": "first"}}')

    caplog.set_level("DEBUG")
    with running(behaviour) as server:
        plan = small_plan(two, server.url, key_variable="TOY_KEY")
        with pytest.raises(Unanswered) as caught:
            judge(plan, journal=tmp_path / "a.jsonl", concurrency=1)
        assert server.asked[0].headers["authorization"] == f"Bearer {secret}"
        assert "bad key Bearer ***" in str(caught.value)
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__
        verdicts = judge(plan, journal=tmp_path / "a.jsonl", concurrency=1)
    written = (tmp_path / "a.jsonl").read_text() + verdicts.to_json() + verdicts.to_markdown() + repr(plan)
    assert "Bearer ***" in written
    assert secret not in written + str(caught.value) + caplog.text


def test_a_missing_key_is_an_error_for_openai_and_none_for_a_server_of_ones_own(two, tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ValueError, match="OPENAI_API_KEY is not set"):
        judge(small_plan(two, "https://api.openai.com/v1"), journal=tmp_path / "a.jsonl")
    with running(oracle) as server:
        assert judge(small_plan(two, server.url), journal=tmp_path / "b.jsonl").num_answers == 16


def test_without_the_client_the_line_that_installs_it(two, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "openai", None)
    plan = small_plan(two)
    assert plan.cost({}).num_requests == 16
    with pytest.raises(MissingExtra, match=re.escape("pip install 'urae[judge]'")):
        judge(plan, journal=tmp_path / "a.jsonl")


def test_other_words_in_the_papers_form(two, tmp_path):
    """No schema, no JSON: the answers of the paper's protocol."""
    words = Instructions(
        answers="brackets",
        texts={"pair": {"overall": "Better? {prompt}"}, "score": {"overall": "0-100: {prompt}"}},
    )

    def behaviour(asked):
        assert "response_format" not in asked.body
        if not asked.pair:
            assert asked.text.startswith("0-100: a {scene} number p")
            return completion(f"{asked.brightness() / 2.55:.0f}")
        better = 1 if asked.brightness(1) > asked.brightness(2) else 2
        return completion(f"[Image {better}] is better than [Image {3 - better}].")

    with running(behaviour) as server:
        plan = small_plan(two, server.url, kinds=("pair", "score"), instructions=words)
        verdicts = judge(plan, journal=tmp_path / "a.jsonl")
    assert verdicts.preferences[0].losses == 8
    assert verdicts.scores.cells["bright"]["overall"].mark == "best"


def test_several_pictures_of_a_prompt_count_as_one(tmp_path):
    """Sixteen pictures of eight prompts: the statistics are over eight."""
    ids = [f"{name}-{seed}" for name in IDS for seed in (0, 1)]
    candidates = {
        name: draw(tmp_path / name, level, ids=ids, seed=level) for name, level in (("a", 60), ("b", 180))
    }
    prompts = {name: PROMPTS[name[:2]] for name in ids}
    with running(oracle) as server:
        plan = small_plan(candidates, server.url, prompts=prompts, kinds=("pair", "score"))
        verdicts = judge(plan, journal=tmp_path / "a.jsonl")
    (preference,) = verdicts.preferences
    assert preference.losses == 16
    assert preference.rate.count == 8
    assert preference.p_value == 2 / 2**8
    assert verdicts.scores.cells["a"]["overall"].num_prompts == 8


def test_identical_pictures_are_paid_for_once(two, tmp_path):
    same = {"one": two["dark"], "other": two["dark"]}
    with running(always_first) as server:
        verdicts = judge(small_plan(same, server.url, kinds=("pair", "score")), journal=tmp_path / "a.jsonl")
    assert len(server.asked) == 16
    assert verdicts.preferences[0].rate.value == 0.5


def test_the_journal_holds_what_an_answer_was_made_with(two, tmp_path):
    with running(lambda asked: score(70)) as server:
        judge(small_plan(two, server.url, kinds=("score",)), journal=tmp_path / "a.jsonl")
    records = [record for tries in read_answers(tmp_path / "a.jsonl").values() for record in tries]
    assert {(r["model"], r["fingerprint"], r["attempt"], r["kind"]) for r in records} == {
        ("toy-2026-11-01", "fp_toy", 0, "score")
    }
    assert {(r["id"], *r["shown"]) for r in records} == {(i, name) for i in IDS for name in two}

"""A server as the model that answers: what it is sent, its failures, and that answers that came are kept."""

from __future__ import annotations

import pytest
from dpg_material import item, question
from judge_server import completion, failure, running
from PIL import Image

from urae.dpg.benchmark import dpg_bench, plan_dpg
from urae.dpg.server import ServerModel
from urae.io import Unanswered
from urae.judge.endpoint import Endpoint
from urae.judge.journal import read_answers

NAMES = [f"p{i}" for i in range(6)]
ITEMS = [item(name, question(1), question(2, 1)) for name in NAMES]


@pytest.fixture
def folder(tmp_path):
    """p0 is darkest."""
    (tmp_path / "a").mkdir()
    for i, name in enumerate(NAMES):
        Image.new("RGB", (64, 32), (40 * i,) * 3).save(tmp_path / "a" / f"{name}.png")
    return tmp_path / "a"


def plan(folder, url, *, retries=2, **settings):
    endpoint = Endpoint(model="toy", base_url=url, schema=False, retries=retries, timeout=20.0)
    return plan_dpg({"a": folder}, ITEMS, ServerModel(endpoint=endpoint, **settings))


def test_one_picture_and_one_question_a_request(folder, tmp_path):
    def behaviour(asked):
        return completion("Yes." if asked.pictures[0].getpixel((0, 0))[0] > 90 else "No, I see none")

    with running(behaviour) as server:
        result = dpg_bench(plan(folder, server.url, max_side=48), journal=tmp_path / "j")
        assert server.most_at_once <= 4
    assert result.scores["a"]["fixed"].prompts == {name: float(i > 2) for i, name in enumerate(NAMES)}
    assert len(server.asked) == 12
    assert {len(asked.pictures) for asked in server.asked} == {1}
    assert {asked.pictures[0].size for asked in server.asked} == {(48, 24)}
    assert {asked.text for asked in server.asked} == {
        f"Is it {number}? Answer with yes or no only." for number in (1, 2)
    }
    assert "response_format" not in server.asked[0].body
    assert len({asked.headers["idempotency-key"] for asked in server.asked}) == 12
    records = [record for records in read_answers(tmp_path / "j").values() for record in records]
    assert {record["model"] for record in records} == {"toy-2026-11-01"}


def test_an_answer_that_cannot_be_read_is_asked_for_once_more_with_a_reminder(folder, tmp_path):
    def behaviour(asked):
        return completion("yes" if "not one word" in asked.text else "Certainly!")

    with running(behaviour) as server:
        result = dpg_bench(plan(folder, server.url), journal=tmp_path / "j")
        assert (result.scores["a"]["fixed"].mean, len(server.asked)) == (1, 24)


def test_a_server_that_is_busy_is_asked_again(folder, tmp_path):
    def behaviour(asked):
        if asked.number % 3 == 0:
            return failure(429, "slow down", headers={"Retry-After": "0.01"})
        return completion("yes")

    with running(behaviour) as server:
        result = dpg_bench(plan(folder, server.url, retries=8), journal=tmp_path / "j")
    assert result.scores["a"]["fixed"].mean == 1


def test_a_server_that_fails_for_good_stops_the_run_which_then_goes_on(folder, tmp_path):
    with running(lambda asked: completion("yes") if asked.number < 5 else failure(500)) as server:
        with pytest.raises(Unanswered, match=r"^toy at http:.* gave no answer"):
            dpg_bench(plan(folder, server.url, retries=0, concurrency=2), journal=tmp_path / "j")
        assert len(server.asked) <= 5 + 2
    kept = len(read_answers(tmp_path / "j"))
    assert kept == 5
    with running(lambda asked: completion("yes")) as server:
        result = dpg_bench(plan(folder, server.url), journal=tmp_path / "j")
    assert (len(server.asked), result.scores["a"]["fixed"].mean) == (12 - 5, 1)

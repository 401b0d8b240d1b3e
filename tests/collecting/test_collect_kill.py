"""A real process, killed by SIGKILL at random moments and started again: the server counts what has to be paid."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from collect_server import KEY, running, sometimes
from killed_run import kill_when, process, run_collect

from urae.data import read_manifest
from urae.io import read_journal

PROMPTS = [f"a scene number {number}" for number in range(16)]


@pytest.mark.parametrize("seed", range(2))
def test_killed_at_random_moments_no_image_is_lost_or_ordered_twice(tmp_path, seed):
    """Orders whose answers the journal holds are never repeated. One that was taken while the process died before
    the answer came may be, once for each kill at the most, and is counted as lost, and as spent."""
    draw, num_kills = random.Random(seed), 0
    with running() as server:
        server.faults["order"] = sometimes(seed + 1, ["429:0.01", "500"], 0.1)
        server.faults["download"] = sometimes(seed + 2, ["cut off", "corrupt", "expired"], 0.3)
        command = (server.url, str(tmp_path), PROMPTS, KEY)
        for _ in range(8):
            threshold = server.num_requests + draw.randrange(1, 14)
            started = process(run_collect, *command)
            num_kills += kill_when(started, lambda least=threshold: server.num_requests >= least)
        last = process(run_collect, *command)
        last.join()
        assert last.exitcode == 0
    lines = read_journal(tmp_path / "orders.jsonl")
    lost = Counter(line["key"] for line in lines if line["event"] == "lost")
    tickets = [line["ticket"]["id"] for line in lines if line["event"] == "ordered"]
    keys = Counter(line["key"] for line in lines if line["event"] == "ordered")
    prompts = {line["key"]: line["prompt"] for line in lines if line["event"] == "sending"}
    assert num_kills >= 3
    assert set(keys.values()) == {1}, "what was ordered and known is not ordered again"
    assert len(keys) == len(tickets) == len(PROMPTS)
    assert set(tickets) <= server.tasks.keys()
    assert sum(lost.values()) <= num_kills, "one order at a time: one answer lost at the most"
    for key, prompt in prompts.items():
        assert server.orders[prompt] <= 1 + lost[key]
    records = read_manifest(tmp_path / "manifest.jsonl")
    assert sorted(record.captions["original"] for record in records) == sorted(PROMPTS)
    made = {task.image: task.prompt for task in server.tasks.values()}
    for record in records:
        assert made[(tmp_path / record.file).read_bytes()] == record.captions["original"]


def test_killed_between_the_taking_of_an_order_and_its_answer(tmp_path):
    """The one moment that no client can close: the server has the order, the client does not have its id."""
    with running() as server:
        server.fail("order", "", "taken, then held")
        command = (server.url, str(tmp_path), PROMPTS[:4], KEY)
        assert kill_when(process(run_collect, *command), lambda: len(server.tasks) == 2)
        server.gate.set()
        again = process(run_collect, *command)
        again.join()
        assert again.exitcode == 0
        assert sum(server.orders.values()) == 5
    lines = read_journal(tmp_path / "orders.jsonl")
    assert [line["reason"] for line in lines if line["event"] == "lost"] == [
        "the run ended before the answer came"
    ]
    assert len(read_manifest(tmp_path / "manifest.jsonl")) == 4

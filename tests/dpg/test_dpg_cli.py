"""`urae dpg`: what it will ask, and where the results are."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from dpg_material import draw, scene_items, scenes
from judge_server import completion, running

from urae.cli.verbs import verb
from urae.dpg.questions import write_questions


def run(*arguments):
    return CliRunner().invoke(verb("dpg"), [str(a) for a in arguments], catch_exceptions=False)


@pytest.fixture
def given(tmp_path) -> list:
    questions = write_questions(scene_items(7), tmp_path / "scenes.csv")
    truth = draw(tmp_path / "truth", scenes(8))
    return ["--candidate", f"truth={truth}", "--questions", questions, "--out", tmp_path / "out"]


def test_from_folders_to_a_table_and_a_second_call_asks_nothing(given, tmp_path):
    waiting = run(*given, "--model", "mini", "--dry-run")
    assert not (tmp_path / "out").exists()
    assert "time: known once some have come" in waiting.output
    result = run(*given, "--model", "mini", "--compat", "official")
    assert "not scored, as no prompt names them: 1 pictures of truth" in waiting.output
    assert "answered by: recogniser of the miniature" in result.output
    num_questions = sum(len(one.questions) for one in scene_items(7))
    assert f"questions to ask: {num_questions}" in waiting.output
    assert "questions to ask: 0" in run(*given, "--model", "mini", "--dry-run").output
    for name in ("dpg.md", "dpg.json", "dpg.html"):
        assert f"wrote {tmp_path / 'out' / name}" in result.output
    assert json.loads((tmp_path / "out" / "dpg.json").read_text())["scores"]["truth"]["fixed"]["mean"] == 1
    # The published script does not count the first prompt.
    assert (tmp_path / "out" / "dpg.html").read_text().count("data:image/jpeg") == 6


def test_a_server_answers_and_options_reach_it(given):
    with running(lambda asked: completion("no")) as server:
        options = ["--option", "seed=null", "--option", "max_tokens=3"]
        result = run(*given, "--model", "toy", "--server", server.url, *options)
    assert "| truth | 0.00 [0.00, 35.43] |" in result.output
    assert {(asked.body.get("seed"), asked.body["max_tokens"]) for asked in server.asked} == {(None, 3)}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--candidate", "nameless"], "candidate is 'nameless': expected name=FOLDER"),
        (["--candidate", "truth=x"], "candidate 'truth' is given twice"),
        (["--option", "seed=1"], "the option 'seed=1' has no effect without a server"),
        (["--option", "seed=x", "--server", "http://127.0.0.1:9/v1"], "value 'x' is not JSON"),
    ],
)
def test_wrong_options(given, more, message):
    with pytest.raises(ValueError, match=message):
        run(*given, "--model", "mini", *more, "--dry-run")

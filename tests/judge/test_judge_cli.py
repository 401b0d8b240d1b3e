"""`urae judge`: the cost before anything is spent, and where the results are."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from judge_server import oracle, running

from urae.cli.verbs import verb


def run(*arguments, answer: str | None = None):
    return CliRunner().invoke(
        verb("judge"), [str(a) for a in arguments], input=answer, catch_exceptions=False
    )


@pytest.fixture
def given(two, prompts_file, tmp_path) -> list:
    folders = [part for name, path in two.items() for part in ("--candidate", f"{name}={path}")]
    return [*folders, "--prompts", prompts_file, "--model", "toy", "--crop", 32, "--out", tmp_path / "out"]


def test_a_dry_run_shows_the_cost_and_needs_neither_client_nor_key(given, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "openai", None)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    result = run(*given, "--price-in", 2, "--price-out", 10, "--dry-run")
    assert result.exit_code == 0
    # 8 prompts x 4 aspects x (2 orders + 2 scores).
    assert "questions: 128, answered before: 0, to ask: 128" in result.output
    assert "price, estimated: " in result.output
    assert "time, estimated: 5 minutes, if each takes 10 s, 4 at a time" in result.output
    assert not (tmp_path / "out").exists()


def test_it_asks_before_it_spends_and_takes_no_for_an_answer(given, tmp_path):
    with running(oracle) as server:
        result = run(*given, "--base-url", server.url, answer="n\n")
        assert result.exit_code == 1
        assert result.output.index("to ask: 128") < result.output.index("Ask them?")
        assert not server.asked


def test_from_folders_to_verdicts_and_a_second_call_is_free(given, two, tmp_path):
    (two["dark"] / "stranger.png").write_bytes((two["dark"] / "p0.png").read_bytes())
    with running(oracle) as server:
        given += [
            "--base-url",
            server.url,
            "--aspect",
            "overall",
            "--option",
            "seed=null",
            "--option",
            "max_tokens=9",
        ]
        result = run(*given, "--yes")
        assert len(server.asked) == 32
        assert {(a.body.get("seed"), a.body["max_tokens"], a.body["temperature"]) for a in server.asked} == {
            (None, 9, 0)
        }
        again = run(*given)
        assert len(server.asked) == 32
    assert "not judged, as no prompt names them: 1 pictures of dark" in result.output
    assert "answered before: 32, to ask: 0" in again.output
    out = tmp_path / "out"
    assert {path.name for path in out.iterdir()} == {
        "answers.jsonl",
        "verdicts.md",
        "verdicts.json",
        "scores.html",
    }
    for path in out.glob("[sv]*"):
        assert f"wrote {path}" in result.output
    assert json.loads((out / "verdicts.json").read_text())["preferences"][0]["losses"] == 8
    assert (
        "| overall | dark | bright | 0 / 0 / 8 | 0 | 0.0% [0.0%, 32.4%] |"
        in (out / "verdicts.md").read_text()
    )
    assert (out / "scores.html").read_text().count("data:image/jpeg") == 16


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--candidate", "nameless"], "candidate is 'nameless': expected name=FOLDER"),
        (["--candidate", "dark=x"], "expected each name once"),
        (["--option", "seed"], "option is 'seed': expected name=VALUE"),
        (["--option", "seed=x"], "the option's value 'x' is not JSON"),
    ],
)
def test_wrong_options(given, more, message):
    with pytest.raises(ValueError, match=message):
        run(*given, *more, "--dry-run")

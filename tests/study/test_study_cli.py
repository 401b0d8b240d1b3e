"""`urae study`: from folders to a report, and what it takes to start."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from click.testing import CliRunner
from study_material import IDS, NAMES, PROMPTS, running

from urae.cli.verbs import verb
from urae.errors import MissingExtra
from urae.study.ballots import BallotBox, read_invitations
from urae.study.manifest import ASPECTS, read_study
from urae.study.server import site_url


def run(*arguments):
    return CliRunner().invoke(verb("study"), [str(a) for a in arguments], catch_exceptions=False)


@pytest.fixture
def given(drawn, tmp_path) -> list:
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps({"id": k, "prompt": v}) + "\n" for k, v in PROMPTS.items()))
    folders = [part for name, folder in drawn.items() for part in ("--candidate", f"{name}={folder}")]
    return ["build", *folders, "--prompts", path, "--out", tmp_path / "study"]


def test_from_folders_to_a_report(given, tmp_path):
    folder = tmp_path / "study"
    built = run(*given, "--raters", 2, "--title", "Cats & dogs")
    assert "6 sets of 3 pictures; 18 questions a rater, 2 invited" in built.output
    assert f"wrote {folder}; next: urae study serve {folder}" in built.output
    invited = run("invite", folder, "--raters", 1, "--url", "https://study.example")
    token = read_invitations(folder)["rater-03"]
    assert invited.output == f"rater-03: https://study.example/join/{token}\n"
    study = read_study(folder)
    with running(study) as site:
        client = site.rater(3)
        for position in range(1, len(IDS) + 1):
            for aspect in ASPECTS:
                client.vote(position, aspect.name, client.shown(position)[0])
        result = run("report", folder)
    assert "# Cats & dogs" in result.output
    assert "18 votes by 1 of 3 invited raters" in result.output
    for name in ("report.md", "report.json", "report.html", "votes.csv"):
        assert f"wrote {folder / 'report' / name}" in result.output
        assert (folder / "report" / name).stat().st_size > 500
    assert set(json.loads((folder / "report/report.json").read_text())["candidates"]) == set(NAMES)
    assert run("report", folder, "--out", tmp_path / "elsewhere").exit_code == 0
    assert (tmp_path / "elsewhere/votes.csv").read_text().count("rater-03") == 18


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--candidate", "nameless"], "candidate is 'nameless': expected name=FOLDER"),
        (["--candidate", "sharp=x"], "each name once"),
        (["--encoding", "gif"], "encoding is 'gif': expected png or jpeg"),
    ],
)
def test_wrong_options(given, more, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        run(*given, *more)
    assert not (tmp_path / "study").exists()


def test_a_network_needs_to_know_its_address(study):
    with pytest.raises(ValueError, match="host is '0.0.0.0': give the address at which raters reach it too"):
        run("serve", study.folder, "--host", "0.0.0.0")
    for wrong in (
        "study.example",
        "https://study.example/path",
        "https://study.example/",
        "ftp://x",
        "https://",
    ):
        with pytest.raises(ValueError, match="expected an address without a path"):
            site_url("127.0.0.1", 8000, wrong)
    # As browsers write an origin.
    assert site_url("127.0.0.1", 8000, "") == "http://127.0.0.1:8000"
    assert site_url("127.0.0.1", 80, "") == "http://127.0.0.1"
    assert site_url("::1", 8000, "") == "http://[::1]:8000"
    assert site_url("0.0.0.0", 8000, "https://study.example:443") == "https://study.example"
    assert site_url("0.0.0.0", 8000, "https://study.example:80") == "https://study.example:80"


def test_without_the_extra_serving_names_it_and_the_rest_works(study, monkeypatch):
    monkeypatch.setitem(sys.modules, "fastapi", None)
    with pytest.raises(MissingExtra, match=r"pip install 'urae\[study\]'"):
        run("serve", study.folder)
    assert run("invite", study.folder).exit_code == 0
    with BallotBox(study) as box:
        assert len(box.raters()) == 3


ALONE = """
import sys
import urae.cli.study
print([name for name in ("torch", "diffusers", "fastapi", "uvicorn") if name in sys.modules])
"""


def test_the_study_needs_neither_torch_nor_before_serving_the_server():
    result = subprocess.run([sys.executable, "-c", ALONE], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
